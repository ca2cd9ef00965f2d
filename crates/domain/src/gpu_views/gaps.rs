//! What GPUs wait for on which nothing contradicts.

use super::{MachineViews, View};
use crate::firmware::View as Given;

/// Why the GPUs of a machine stay inventoried though no view of them contradicts another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gap {
    /// Nothing says which views the model gives.
    Undeclared,
    /// This view has not been asked.
    NotAsked {
        /// Which.
        view: View,
    },
    /// The model gives no view from inside the host, or none from outside: no two could ever agree.
    NeverGiven,
}

impl MachineViews<'_> {
    /// What keeps its GPUs from being probed, besides what contradicts; where there is nothing, they are.
    pub fn gaps(&self) -> Vec<Gap> {
        let mut gaps = Vec::new();
        let Some(given) = self.given else {
            gaps.push(Gap::Undeclared);
            // Whatever a profile says, no GPU is probed without its driver.
            gaps.extend(self.nvml.is_none().then_some(Gap::NotAsked { view: View::Nvml }));
            return gaps;
        };
        let outside = given.redfish == Given::Expected || given.spdm == Given::Expected;
        if given.nvml != Given::Expected || !outside {
            return vec![Gap::NeverGiven];
        }
        let views = [
            (View::Redfish, given.redfish, self.redfish.is_some()),
            (View::Spdm, given.spdm, self.spdm.is_some()),
            (View::Nvml, given.nvml, self.nvml.is_some()),
        ];
        let open = views.into_iter().filter(|(_, given, asked)| *given == Given::Expected && !asked);
        open.map(|(view, ..)| Gap::NotAsked { view }).collect()
    }
}
