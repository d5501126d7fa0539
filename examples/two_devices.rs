//! Two devices import real rows, edit them while apart, meet, and converge: the main job in one page.
//!
//! Run it with `cargo run --release --example two_devices`.

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use thence::model::Role;
use thence::node::{DataFolder, Invitation, Node, NodeConfig, Space, Transaction};
use thence::transport::PeerAddress;

/// 300 airports, US public domain; see `tests/data/README.md`.
const AIRPORTS: &str = include_str!("../tests/data/airports.jsonl");

/// Opens the node of a data folder; without a network it can do everything but meet others.
async fn open(folder: &Path, network: bool) -> Result<Node, Box<dyn Error>> {
    let folder = DataFolder::new(folder);
    folder.init()?;
    let mut config = NodeConfig::new(folder.claim_for_node(Duration::from_secs(5))?);
    config.listen = if network { Some("127.0.0.1:0".parse()?) } else { None };
    Ok(Node::open(config).await?)
}

/// Imports rows: a row that is there already costs no event.
async fn import(space: &Space) -> Result<usize, Box<dyn Error>> {
    let mut import = Transaction::new();
    for line in AIRPORTS.lines() {
        let row: Value = serde_json::from_str(line)?;
        let key = row["iata"].as_str().ok_or("a row without its key")?.to_owned();
        import = import.update("airports", &key, row)?;
    }
    Ok(space.write(import).await?.changed)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let (phone_folder, laptop_folder) = (folder.path().join("phone"), folder.path().join("laptop"));
    let (phone, laptop) = (open(&phone_folder, true).await?, open(&laptop_folder, true).await?);

    let id = phone.create_space("travel").await?;
    let on_phone = phone.space(id)?;
    println!("phone   imports {} airports, then again: {} changed", import(&on_phone).await?, import(&on_phone).await?);

    let invitation = Invitation { role: Role::Writer, uses: 1, expires: Duration::from_secs(3600) };
    laptop.join(&phone.invite(id, &invitation)?).await?;
    println!("laptop  joins with a ticket and has {} of them", laptop.view(id)?.summary()?.objects);
    drop(on_phone);
    phone.close().await;
    laptop.close().await;

    println!("\nApart, both edit:");
    let (phone, laptop) = (open(&phone_folder, false).await?, open(&laptop_folder, false).await?);
    let (on_phone, on_laptop) = (phone.space(id)?, laptop.space(id)?);
    on_phone.write(Transaction::new().patch("airports", "00M", json!({"name": "Thigpen Field"}))?).await?;
    on_laptop.write(Transaction::new().patch("airports", "00M", json!({"city": "Bay Springs, MS"}))?).await?;
    println!("        00M: the phone its name, the laptop its city");
    on_phone.write(Transaction::new().patch("airports", "04Y", json!({"name": "Hawley"}))?).await?;
    on_laptop.write(Transaction::new().patch("airports", "04Y", json!({"name": "Hawley Municipal Airport"}))?).await?;
    println!("        04Y: both its name");
    on_phone.write(Transaction::new().delete("airports", "07F")?).await?;
    on_laptop.write(Transaction::new().patch("airports", "07F", json!({"city": "Gladewater, TX"}))?).await?;
    println!("        07F: the phone deletes it, the laptop edits it");
    on_phone.write(Transaction::new().increment("airports", "09W", "visits", 2)?).await?;
    on_laptop.write(Transaction::new().increment("airports", "09W", "visits", 3)?).await?;
    println!("        09W: the phone counts 2 visits, the laptop 3");

    drop((on_phone, on_laptop));
    phone.close().await;
    laptop.close().await;

    let (phone, laptop) = (open(&phone_folder, true).await?, open(&laptop_folder, true).await?);
    let (on_phone, on_laptop) = (phone.space(id)?, laptop.space(id)?);
    let started = Instant::now();
    laptop.add_peer(PeerAddress::new(phone.device(), phone.local_address().ok_or("it listens")?)).await?;
    let report = laptop.sync(Duration::from_secs(30)).await?;
    assert_eq!(report.synced, [phone.device()]);
    println!("\nThey meet and know the same after {:.1?}:", started.elapsed());

    let show = |key: &str| -> Result<Value, Box<dyn Error>> {
        let (here, there) = (on_phone.get("airports", key)?, on_laptop.get("airports", key)?);
        assert_eq!(here, there, "two devices of equal knowledge show the same");
        Ok(here.map_or(Value::Null, |found| Value::Object(found.fields)))
    };
    let merged = show("00M")?;
    println!("        00M: {} in {}", merged["name"], merged["city"]);
    for found in on_phone.conflicts()? {
        for conflict in found.conflicts {
            let values: Vec<String> = conflict.values.iter().map(Value::to_string).collect();
            println!(
                "        {}: {} is in conflict, and both are kept: {}",
                found.key,
                conflict.path,
                values.join(", ")
            );
        }
    }
    for lost in on_laptop.lost()? {
        println!("        {}: deleted; the edit that lost is kept: {}", lost.key, Value::Object(lost.fields));
    }
    println!("        09W: {} visits", show("09W")?["visits"]);

    on_laptop.write(Transaction::new().resolve("airports", "04Y", "name", json!("Hawley Municipal (MN)"))?).await?;
    laptop.sync(Duration::from_secs(30)).await?;
    assert!(on_phone.conflicts()?.is_empty());
    println!("\nlaptop  resolves the conflict; on the phone it is gone too: {}", show("04Y")?["name"]);

    assert_eq!(on_phone.view()?.vector()?, on_laptop.view()?.vector()?);
    phone.close().await;
    laptop.close().await;
    Ok(())
}
