//! Builds an image by hand: `cargo run -p pando-image --example build -- HOME NAME GUEST [PACKAGE…]`.

use std::sync::Arc;
use std::time::Instant;

use pando_driver::images::BuildSpec;
use pando_driver::{Images, Reporter};
use pando_image::{ImageConfig, ImageStore};
use pando_model::operation::Progress;
use pando_model::{ByteCount, Layout};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(home), Some(name), Some(guest)) = (args.next(), args.next(), args.next()) else {
        return Err("usage: build HOME NAME GUEST-PROGRAM [PACKAGE…]".into());
    };
    let layout = Layout::new(&home, format!("{home}/run"));
    let store = ImageStore::new(ImageConfig::new(layout.clone(), guest));
    let spec = BuildSpec {
        name: name.parse()?,
        release: None,
        packages: args.collect(),
        mirror: None,
        disk_size: ByteCount::from_gib(8),
    };
    let started = Instant::now();
    let reporter = Reporter::new(
        Arc::new(move |progress: Progress| {
            println!("{:6.1} s  {}", started.elapsed().as_secs_f64(), progress.message);
        }),
        tokio_util::sync::CancellationToken::new(),
    );
    let image = store.build(&spec, &reporter).await?;
    println!("{:6.1} s  {}", started.elapsed().as_secs_f64(), layout.image(&image.id).display());
    println!("{image:#?}");
    Ok(())
}
