//! Writes the first inputs of every target into `corpus/`: what honest nodes say and store.

use std::fs;
use std::path::Path;

use thence_fuzz::seeds::seeds;

fn main() -> std::io::Result<()> {
    for (target, number, bytes) in seeds() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(format!("honest-{number}")), bytes)?;
    }
    Ok(())
}
