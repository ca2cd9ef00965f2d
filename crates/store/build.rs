//! Migrations are compiled in: a changed one is a reason to build again.

fn main() {
    // Read by cargo, not by people.
    #[allow(clippy::print_stdout)]
    {
        println!("cargo:rerun-if-changed=migrations");
    }
}
