//! Writes the first inputs of every target into `corpus/`, in place of those that are there: what honest nodes say and
//! store.

use std::fs;
use std::path::Path;

use thence_fuzz::seeds::seeds;

fn main() -> std::io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for folder in fs::read_dir(&corpus)? {
        for input in fs::read_dir(folder?.path())? {
            let input = input?;
            if input.file_name().to_string_lossy().starts_with("honest-") {
                fs::remove_file(input.path())?;
            }
        }
    }
    for (target, number, bytes) in seeds() {
        let folder = corpus.join(target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(format!("honest-{number}")), bytes)?;
    }
    Ok(())
}
