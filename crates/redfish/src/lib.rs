//! The Redfish client: transport, sessions, quirks, walk, inventory.
