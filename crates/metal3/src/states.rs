//! The words baremetal-operator writes into a host's status (`baremetalhost_types.go` of v0.13.2). Words of later versions are
//! kept as they are, so that nothing that is read is lost.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// An enumeration of words with a place for those not known yet.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$doc])* $variant,)+
            /// A word that this version does not know.
            Other(String),
        }

        impl $name {
            /// Every word known.
            pub const KNOWN: &[Self] = &[$(Self::$variant),+];

            /// As baremetal-operator writes it.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $word,)+
                    Self::Other(word) => word,
                }
            }

            /// Reads a word.
            pub fn parse(word: &str) -> Self {
                match word {
                    $($word => Self::$variant,)+
                    other => Self::Other(other.to_owned()),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer).map(|word| Self::parse(&word))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}

words! {
    /// Where a host stands: `status.provisioning.state`.
    #[derive(Default)]
    ProvisioningState {
        /// The operator has not looked at it yet.
        #[default]
        None = "",
        /// Without the address or credentials of a BMC.
        Unmanaged = "unmanaged",
        /// The BMC's address and credentials are tried.
        Registering = "registering",
        /// Of older versions: passes at once.
        MatchProfile = "match profile",
        /// Its hardware is being read.
        Inspecting = "inspecting",
        /// RAID and firmware are brought in line.
        Preparing = "preparing",
        /// The older name of [`Self::Available`].
        Ready = "ready",
        /// May be taken.
        Available = "available",
        /// An image is written, or booted.
        Provisioning = "provisioning",
        /// It runs its image.
        Provisioned = "provisioned",
        /// Somebody else put on it what it runs; only its power is managed.
        ExternallyProvisioned = "externally provisioned",
        /// Its image is taken off, and its disks are cleaned.
        Deprovisioning = "deprovisioning",
        /// The last power off before it is forgotten.
        PoweringOffBeforeDelete = "powering off before delete",
        /// It is being forgotten.
        Deleting = "deleting",
    }
}

words! {
    /// How the operator gets on with a host: `status.operationalStatus`.
    #[derive(Default)]
    OperationalStatus {
        /// Not looked at yet.
        #[default]
        None = "",
        /// All is well.
        Ok = "OK",
        /// Known without a BMC.
        Discovered = "discovered",
        /// See the error.
        Error = "error",
        /// As many hosts as the operator takes at once are being worked on.
        Delayed = "delayed",
        /// Taken out of the provisioning service by annotation.
        Detached = "detached",
        /// Firmware or settings of a provisioned host are being changed.
        Servicing = "servicing",
    }
}

words! {
    /// What failed: `status.errorType`.
    ErrorType {
        /// A provisioned host could not be made known to the provisioning service again.
        ProvisionedRegistration = "provisioned registration error",
        /// The BMC does not let the service in, or cannot be reached.
        Registration = "registration error",
        /// The hardware could not be read.
        Inspection = "inspection error",
        /// RAID, firmware or cleaning before the first use.
        Preparation = "preparation error",
        /// Putting an image on, or taking it off.
        Provisioning = "provisioning error",
        /// Power on or off.
        PowerManagement = "power management error",
        /// Taking it out of the provisioning service.
        Detach = "detach error",
        /// Servicing a provisioned host.
        Servicing = "servicing error",
    }
}

impl ProvisioningState {
    /// Whether the host rests: the operator waits for a wish, and works on nothing but its power.
    pub fn is_stable(&self) -> bool {
        matches!(
            self,
            Self::Unmanaged | Self::Ready | Self::Available | Self::Provisioned | Self::ExternallyProvisioned
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_reads_back_and_an_unknown_one_is_kept() {
        for state in ProvisioningState::KNOWN {
            assert_eq!(&ProvisioningState::parse(state.as_str()), state);
        }
        for error in ErrorType::KNOWN {
            assert_eq!(&ErrorType::parse(error.as_str()), error);
        }
        for status in OperationalStatus::KNOWN {
            assert_eq!(&OperationalStatus::parse(status.as_str()), status);
        }
        let later = ProvisioningState::parse("refurbishing");
        assert_eq!(later, ProvisioningState::Other("refurbishing".to_owned()));
        assert_eq!(later.as_str(), "refurbishing");
    }
}
