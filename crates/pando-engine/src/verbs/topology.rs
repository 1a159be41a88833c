//! `topology_*`.

use pando_api::topology::{
    TopologyListParams, TopologyListResult, TopologyRow, TopologyShowResult, TopologyValidateResult,
};

use crate::engine::Engine;
use crate::failure::Result;
use crate::paging::page;
use crate::topology_files::view;

impl Engine {
    pub(super) async fn topology_validate(&self, text: &str) -> Result<TopologyValidateResult> {
        let source = self.topology_source(text).await?;
        let path = source.shown_path();
        Ok(match source.parse(&self.config.ssh) {
            Ok(topology) => TopologyValidateResult {
                valid: true,
                path,
                topology: Some(view(&topology)),
                errors: Vec::new(),
                more_errors: 0,
                notes: topology.notes,
            },
            Err(errors) => TopologyValidateResult {
                valid: false,
                path,
                topology: None,
                errors: errors.errors,
                more_errors: errors.more as u64,
                notes: Vec::new(),
            },
        })
    }

    pub(super) async fn topology_list(
        &self,
        params: TopologyListParams,
    ) -> Result<TopologyListResult> {
        let all = self.topology_sources().await?;
        let name = |source: &crate::topology_files::Source| source.name.clone().unwrap_or_default();
        let (sources, page) = page(all, params.limit, params.cursor.as_deref(), name)?;
        let rows = sources.iter().map(|source| {
            let parsed = source.parse(&self.config.ssh);
            TopologyRow {
                name: name(source),
                path: source.shown_path().unwrap_or_default(),
                error: parsed
                    .as_ref()
                    .err()
                    .and_then(|errors| Some(errors.errors.first()?.to_string())),
                topology: parsed.ok().as_ref().map(view),
            }
        });
        Ok(TopologyListResult {
            directory: self.config.topology_dir.display().to_string(),
            topologies: rows.collect(),
            page,
        })
    }

    pub(super) async fn topology_show(&self, text: &str) -> Result<TopologyShowResult> {
        let (source, topology) = self.topology(text).await?;
        Ok(TopologyShowResult {
            path: source.shown_path(),
            topology: view(&topology),
            yaml: topology.to_yaml(),
            notes: topology.notes,
        })
    }
}
