//! Reading a tree, and asking after its diagnostics.

use bailiwick_redfish::{WalkOptions, inventory};
use domain::inventory::Inventory;

use super::tree::Tree;

pub async fn read(tree: &Tree) -> Inventory {
    tree.forget();
    inventory(tree, &WalkOptions::default()).await.expect("an inventory")
}

pub fn has(inventory: &Inventory, code: &str, path: &str) -> bool {
    inventory.diagnostics.iter().any(|diagnostic| diagnostic.code == code && diagnostic.path == path)
}

pub fn count(inventory: &Inventory, code: &str) -> usize {
    inventory.diagnostics.iter().filter(|diagnostic| diagnostic.code == code).count()
}
