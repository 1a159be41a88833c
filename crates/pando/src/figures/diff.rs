//! What a comparison of two branches costs: that of a commit that was never looked into, and again.

use pando_api::ApiError;
use pando_api::state::StateDiffResult;
use pando_model::ErrorCode;
use serde_json::json;

use super::{Bench, Figure, Figures, NAME, ms};

/// Differences that are made: files, and packages of some files each.
const FILES: usize = 20;
const PACKAGES: usize = 2;

impl Bench<'_> {
    pub(super) async fn diff(&self) -> Figures {
        self.vm(NAME, 512).await?;
        let package = "d=$(mktemp -d) && mkdir -p $d/DEBIAN $d/usr/share/bench-$n && chmod 755 $d && \
                       for f in $(seq 50); do echo $f >$d/usr/share/bench-$n/$f; done && \
                       printf \"Package: bench-$n\\nVersion: 1\\nArchitecture: all\\n\
                       Maintainer: a <a@b>\\nDescription: a\\n\" >$d/DEBIAN/control && \
                       dpkg-deb -b $d /root/bench-$n.deb && rm -r $d";
        self.sh(NAME, &format!("for n in $(seq {PACKAGES}); do {package}; done")).await?;
        let (mut first, mut again) = (Vec::new(), Vec::new());
        for _ in 0..self.options.runs {
            self.sh(
                NAME,
                &format!("dpkg --purge $(seq -f bench-%g {PACKAGES}); rm -rf /srv/bench"),
            )
            .await?;
            self.branches(NAME, &["b".to_owned()]).await?;
            let change = format!(
                "mkdir -p /srv/bench; for n in $(seq {FILES}); do echo $n >/srv/bench/$n; done; \
                 dpkg -i /root/bench-*.deb"
            );
            self.sh(NAME, &change).await?;
            for samples in [&mut first, &mut again] {
                let params = json!({"from": format!("{NAME}@b"), "to": NAME});
                let (diff, time): (StateDiffResult, _) =
                    self.session.timed("state_diff", params).await?;
                // The directory is one more.
                let expected = (FILES + 1 + PACKAGES) as u64;
                if diff.page.total != expected {
                    let found = diff.page.total;
                    let message = format!("{found} differences were found, not {expected}");
                    return Err(ApiError::new(ErrorCode::Internal, message));
                }
                samples.push(ms(time));
            }
            self.delete_branch(&format!("{NAME}@b")).await?;
        }
        let what = format!("{FILES} files and {PACKAGES} packages changed");
        Ok(vec![
            Figure::new(&format!("diff of two branches, {what}"), "ms", Some(1500.0), first),
            Figure::new("the same again", "ms", None, again),
        ])
    }
}
