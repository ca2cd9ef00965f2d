//! `docs/reference/` is what the program says of itself.

mod support;

use support::Desk;

#[tokio::test]
async fn the_reference_pages_are_not_stale() {
    let desk = Desk::new();
    desk.run(&["reference", "--dir", "reference"]).await.ends(0);
    let mut pages = 0;
    for entry in std::fs::read_dir(desk.path("reference")).unwrap() {
        let path = entry.unwrap().path();
        let published = support::repository().join("docs/reference").join(path.file_name().unwrap());
        let (now, published) = (
            std::fs::read_to_string(&path).unwrap(),
            std::fs::read_to_string(&published).unwrap_or_default(),
        );
        assert!(
            now == published,
            "{} is stale: run `cargo run -- reference --dir docs/reference`",
            path.display()
        );
        pages += 1;
    }
    assert_eq!(pages, 7);
}
