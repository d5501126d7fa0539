//! What is kept under which key.
//!
//! Every key begins with one letter for its table. Everything of a space begins further with a four-byte number that
//! stands for one *revision* of that space: small keys, and a wiped revision is one key range to remove. Numbers are
//! big-endian, so that byte order is number order.
//!
//! | table | key → row |
//! |---|---|
//! | `m` | name → what concerns the whole store: [`super::record::Meta`], peers |
//! | `s` | space id → [`super::record::SpaceRow`], with the number of its current revision |
//! | `t` | number → [`super::record::Totals`] |
//! | `r` | number, replica number → [`super::record::Author`]: whose incarnation that is, or a branch of which |
//! | `b` | number, replica number → what that branch goes on from, as a replica number |
//! | `e` | number, replica number, hash of a counter's run → how far it had counted when that history was split |
//! | `c` | number, collection number → its name |
//! | `k` | number, range, replica number → head and whether it is a tip |
//! | `l` | number, arrival → a segment, as it was signed |
//! | `d` | number, replica number, last counter → [`super::record::DotRow`]: arrival, and the events' hashes |
//! | `o` | number, collection number, object key → [`super::record::ObjectRow`] |
//! | `f` | number, position → [`super::record::FeedRow`]: each object once, at its latest change |
//! | `n` | number, collection number → [`super::record::TableRow`] |
//! | `v` | number, collection number, source version, object key → nothing: rows by the version that a client gave them |
//! | `x` | number, index, collection number, object key → nothing: objects in conflict, lost edits |
//! | `i` | number, id → [`super::record::AskedRow`]: what a client asked for under that id |
//! | `p` | space id, device → what that peer acknowledged last |
//! | `w` | number → [`super::record::WipedRow`]: a revision that is over, and how much of it is removed |

/// The range number of the only key range that this release keeps, the full one.
pub(super) const FULL_RANGE: u16 = 0;

/// An index over objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Index {
    Conflicts = 1,
    Lost = 2,
}

fn key(table: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + parts.iter().map(|part| part.len()).sum::<usize>());
    key.push(table);
    parts.iter().for_each(|part| key.extend_from_slice(part));
    key
}

pub(super) fn meta() -> Vec<u8> {
    key(b'm', &[b"store"])
}

pub(super) fn setting(name: &str) -> Vec<u8> {
    key(b'm', &[b"setting/", name.as_bytes()])
}

pub(super) fn renewals() -> Vec<u8> {
    key(b'm', &[b"renewal/"])
}

pub(super) fn renewal(number: u64) -> Vec<u8> {
    key(b'm', &[b"renewal/", &number.to_be_bytes()])
}

pub(super) fn peers() -> Vec<u8> {
    key(b'm', &[b"peer/"])
}

pub(super) fn peer(device: &[u8; 32]) -> Vec<u8> {
    key(b'm', &[b"peer/", device])
}

pub(super) fn spaces() -> Vec<u8> {
    key(b's', &[])
}

pub(super) fn space(id: &[u8; 16]) -> Vec<u8> {
    key(b's', &[id])
}

pub(super) fn totals(number: u32) -> Vec<u8> {
    key(b't', &[&number.to_be_bytes()])
}

pub(super) fn replicas(number: u32) -> Vec<u8> {
    key(b'r', &[&number.to_be_bytes()])
}

pub(super) fn replica(number: u32, replica: u32) -> Vec<u8> {
    key(b'r', &[&number.to_be_bytes(), &replica.to_be_bytes()])
}

pub(super) fn branches(number: u32) -> Vec<u8> {
    key(b'b', &[&number.to_be_bytes()])
}

pub(super) fn branch(number: u32, replica: u32) -> Vec<u8> {
    key(b'b', &[&number.to_be_bytes(), &replica.to_be_bytes()])
}

pub(super) fn ended(number: u32, replica: u32, run: &[u8; 16]) -> Vec<u8> {
    key(b'e', &[&number.to_be_bytes(), &replica.to_be_bytes(), run])
}

pub(super) fn log(number: u32) -> Vec<u8> {
    key(b'l', &[&number.to_be_bytes()])
}

pub(super) fn collections(number: u32) -> Vec<u8> {
    key(b'c', &[&number.to_be_bytes()])
}

pub(super) fn collection(number: u32, collection: u32) -> Vec<u8> {
    key(b'c', &[&number.to_be_bytes(), &collection.to_be_bytes()])
}

pub(super) fn heads(number: u32) -> Vec<u8> {
    key(b'k', &[&number.to_be_bytes(), &FULL_RANGE.to_be_bytes()])
}

pub(super) fn head(number: u32, replica: u32) -> Vec<u8> {
    key(b'k', &[&number.to_be_bytes(), &FULL_RANGE.to_be_bytes(), &replica.to_be_bytes()])
}

pub(super) fn segment(number: u32, arrival: u64) -> Vec<u8> {
    key(b'l', &[&number.to_be_bytes(), &arrival.to_be_bytes()])
}

pub(super) fn dots(number: u32, replica: u32) -> Vec<u8> {
    key(b'd', &[&number.to_be_bytes(), &replica.to_be_bytes()])
}

pub(super) fn dot(number: u32, replica: u32, counter: u64) -> Vec<u8> {
    key(b'd', &[&number.to_be_bytes(), &replica.to_be_bytes(), &counter.to_be_bytes()])
}

pub(super) fn objects(number: u32, collection: u32) -> Vec<u8> {
    key(b'o', &[&number.to_be_bytes(), &collection.to_be_bytes()])
}

pub(super) fn object(number: u32, collection: u32, name: &str) -> Vec<u8> {
    key(b'o', &[&number.to_be_bytes(), &collection.to_be_bytes(), name.as_bytes()])
}

pub(super) fn feed(number: u32) -> Vec<u8> {
    key(b'f', &[&number.to_be_bytes()])
}

pub(super) fn position(number: u32, position: u64) -> Vec<u8> {
    key(b'f', &[&number.to_be_bytes(), &position.to_be_bytes()])
}

pub(super) fn table(number: u32, collection: u32) -> Vec<u8> {
    key(b'n', &[&number.to_be_bytes(), &collection.to_be_bytes()])
}

pub(super) fn sources(number: u32, collection: u32) -> Vec<u8> {
    key(b'v', &[&number.to_be_bytes(), &collection.to_be_bytes()])
}

pub(super) fn sources_from(number: u32, collection: u32, version: i64) -> Vec<u8> {
    // With the sign turned over, the order of bytes is that of numbers.
    let version = version.cast_unsigned() ^ (1 << 63);
    key(b'v', &[&number.to_be_bytes(), &collection.to_be_bytes(), &version.to_be_bytes()])
}

pub(super) fn source(number: u32, collection: u32, version: i64, name: &str) -> Vec<u8> {
    let mut key = sources_from(number, collection, version);
    key.extend_from_slice(name.as_bytes());
    key
}

pub(super) fn indexed(number: u32, index: Index) -> Vec<u8> {
    key(b'x', &[&number.to_be_bytes(), &[index as u8]])
}

pub(super) fn index(number: u32, index: Index, collection: u32, name: &str) -> Vec<u8> {
    key(b'x', &[&number.to_be_bytes(), &[index as u8], &collection.to_be_bytes(), name.as_bytes()])
}

pub(super) fn all_asked(number: u32) -> Vec<u8> {
    key(b'i', &[&number.to_be_bytes()])
}

pub(super) fn asked(number: u32, id: &str) -> Vec<u8> {
    key(b'i', &[&number.to_be_bytes(), id.as_bytes()])
}

pub(super) fn acknowledged(space: &[u8; 16], device: &[u8; 32]) -> Vec<u8> {
    key(b'p', &[space, device])
}

pub(super) fn acknowledgements(space: &[u8; 16]) -> Vec<u8> {
    key(b'p', &[space])
}

pub(super) fn all_wiped() -> Vec<u8> {
    key(b'w', &[])
}

pub(super) fn wiped(number: u32) -> Vec<u8> {
    key(b'w', &[&number.to_be_bytes()])
}

/// Where everything lies that belongs to one revision of a space, table by table. The feed comes first: it tells how
/// many objects there are still.
pub(super) fn all_of(number: u32) -> [Vec<u8>; 14] {
    b"ftrbecklonvxid".map(|table| key(table, &[&number.to_be_bytes()]))
}

/// The first key that does not begin with `prefix`.
pub(super) fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    // Tables are ASCII letters, so a key never consists of 0xff bytes alone.
    vec![u8::MAX]
}

/// The big-endian number that stands at `at` in a key.
pub(super) fn number_at(key: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(key.get(at..at + 4)?.try_into().ok()?))
}

/// The version of a client that stands at `at` in a key.
pub(super) fn source_version_at(key: &[u8], at: usize) -> Option<i64> {
    Some((counter_at(key, at)? ^ (1 << 63)).cast_signed())
}

/// The big-endian counter or position that stands at `at` in a key.
pub(super) fn counter_at(key: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(at..at + 8)?.try_into().ok()?))
}
