//! Models of servers, written for this project: synthetic, small, with the traits of the kind of server that they stand for.

mod builder;
mod cpu_node;
mod dgx_h100;
mod poweredge_xe;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::behaviour::{Behaviour, Etags, Expand, PowerStyle};
use crate::error::Error;
use crate::tree::Tree;

/// A model of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Model {
    /// Eight H100 on a baseboard with a manager of its own; collections page at 75; `$expand` is advertised and drops fields (quirk 19).
    DgxH100,
    /// A Dell-like server with four L40S, whose GPUs are processors `Video.Slot.…`; SKU is the service tag (quirk 27).
    PowerEdgeXe,
    /// A server without GPUs on OpenBMC-like firmware: no `$expand`, no ETags (quirk 9).
    CpuNode,
}

impl Model {
    /// All models.
    pub const ALL: [Self; 3] = [Self::DgxH100, Self::PowerEdgeXe, Self::CpuNode];

    /// Its name in site files.
    pub fn name(self) -> &'static str {
        match self {
            Self::DgxH100 => "dgx-h100",
            Self::PowerEdgeXe => "poweredge-xe",
            Self::CpuNode => "cpu-node",
        }
    }

    /// How many GPUs it has.
    pub fn gpu_count(self) -> usize {
        match self {
            Self::DgxH100 => dgx_h100::GPUS,
            Self::PowerEdgeXe => poweredge_xe::GPUS,
            Self::CpuNode => 0,
        }
    }

    /// The page size of its firmware.
    pub fn page_size(self) -> usize {
        match self {
            Self::DgxH100 => 75,
            Self::PowerEdgeXe => 50,
            Self::CpuNode => 1000,
        }
    }

    /// Its tree, paged as its firmware pages. Build it once and share it.
    pub fn tree(self) -> Tree {
        self.tree_paged(self.page_size())
    }

    /// Its tree with another page size.
    pub fn tree_paged(self, page_size: usize) -> Tree {
        let resources = match self {
            Self::DgxH100 => dgx_h100::resources(),
            Self::PowerEdgeXe => poweredge_xe::resources(),
            Self::CpuNode => cpu_node::resources(),
        };
        Tree::from_values(resources).paged(page_size)
    }

    /// How its firmware behaves.
    pub fn behaviour(self) -> Behaviour {
        let power = |seconds, conflict_if_already| PowerStyle {
            delay: Duration::from_secs(seconds),
            conflict_if_already,
            ..PowerStyle::default()
        };
        match self {
            Self::DgxH100 => Behaviour {
                etags: Etags::Strong,
                expand: Expand::DropsFields,
                power: power(2, false),
                ..Behaviour::default()
            },
            Self::PowerEdgeXe => {
                Behaviour { etags: Etags::Strong, power: power(2, true), ..Behaviour::default() }
            }
            Self::CpuNode => Behaviour { etags: Etags::None, power: power(1, false), ..Behaviour::default() },
        }
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Model {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|model| model.name() == text)
            .ok_or_else(|| Error::UnknownModel(text.to_owned()))
    }
}
