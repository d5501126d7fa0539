//! Who may do what in a space: its genesis, its grants, and the tickets that turn into grants.
//!
//! Grants are ordinary objects of the collection `$grants`, one per device, written by owners: they replicate, are
//! signed and are ordered like everything else. A ticket is signed by an owner and can be redeemed at any owner's
//! node; how often it was used is counted by the grants that name it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::identity::{IdSyntaxError, parse_hex};
use super::{
    Content, DeviceId, DeviceKey, Entry, Event, Object, ObjectKey, Path, Segment, Slot, VOUCHERS_MAX, Value, Voucher,
};
use crate::causal::Dot;
use crate::codec;
use crate::model::CollectionName;

/// A space: 16 bytes, written as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SpaceId([u8; 16]);

impl SpaceId {
    /// The id with these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for SpaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for SpaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpaceId({})", &self.to_string()[..8])
    }
}

impl FromStr for SpaceId {
    type Err = IdSyntaxError;

    fn from_str(text: &str) -> Result<Self, IdSyntaxError> {
        parse_hex(text, "a space id").map(Self)
    }
}

/// How a space began. Its hash is the space's id, so nobody can claim to have created somebody else's space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Genesis {
    /// Its first owner.
    pub creator: DeviceId,
    /// Drawn at random.
    pub nonce: [u8; 16],
}

impl Genesis {
    /// The id of the space that began so.
    pub fn space(&self) -> SpaceId {
        let mut hasher = blake3::Hasher::new_derive_key("thence 1 space");
        hasher.update(self.creator.as_bytes());
        hasher.update(&self.nonce);
        let mut id = [0; 16];
        id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        SpaceId(id)
    }
}

/// What a device may do in a space. Each may also do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    /// Reads.
    Reader,
    /// Writes objects.
    Writer,
    /// Grants, invites, and vouches for state.
    Owner,
}

impl Role {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Writer => "writer",
            Self::Owner => "owner",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "reader" => Ok(Self::Reader),
            "writer" => Ok(Self::Writer),
            "owner" => Ok(Self::Owner),
            other => Err(format!("{other:?} is no role: use owner, writer or reader")),
        }
    }
}

/// The id of a ticket: 16 random bytes.
pub type TicketId = [u8; 16];

/// One grant, as its object shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// To whom.
    pub device: DeviceId,
    /// What for.
    pub role: Role,
    /// The ticket that was redeemed, if any.
    pub ticket: Option<TicketId>,
    /// The word of whoever made the device an owner, with which it can show that to anybody.
    pub voucher: Option<Voucher>,
}

impl Grant {
    /// The key of its object.
    pub fn key(device: DeviceId) -> ObjectKey {
        device.to_string().parse().unwrap_or_else(|_| unreachable!("64 hexadecimal digits are a key"))
    }

    /// Whose grants stand under a key.
    ///
    /// Ids are read in capital letters too, and those keys are nobody's: with two objects for one device, the later one
    /// to be read or written would count, and nodes would differ in what they take.
    fn grantee(key: &str) -> Option<DeviceId> {
        key.parse().ok().filter(|device: &DeviceId| device.to_string() == key)
    }

    /// The fields of its object.
    pub fn to_fields(&self) -> Map<String, Json> {
        let mut fields = Map::from_iter([("role".to_owned(), Json::from(self.role.as_str()))]);
        if let Some(ticket) = self.ticket {
            fields.insert("ticket".to_owned(), Json::from(data_encoding::HEXLOWER.encode(&ticket)));
        }
        if let Some(voucher) = &self.voucher {
            fields.insert("voucher".to_owned(), Json::from(BASE64URL_NOPAD.encode(&codec::encode(voucher))));
        }
        fields
    }

    /// The grant that an object of `$grants` is; none if it makes no sense, which then grants nothing.
    ///
    /// Owners who know nothing of one another may grant different roles to one device. Until somebody decides, the
    /// strongest counts: what the device does by one grant must be accepted wherever the other arrived before it, or
    /// nodes would differ for ever in what they take.
    pub fn from_object(key: &str, object: &Object) -> Option<Self> {
        let device = Self::grantee(key)?;
        let text = |entry: &Entry| match &entry.content {
            Content::Value(Value::Text(text)) => Some(text.clone()),
            _ => None,
        };
        let field = |name: &str| Path::try_from(vec![name.to_owned()]).map(Slot::Register).ok();
        let (role, ticket, voucher) = (field("role")?, field("ticket")?, field("voucher")?);
        let read_voucher = |text: String| {
            let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
            codec::decode::<Voucher>("voucher", &bytes).ok()
        };
        let grant = |(slot, dot, entry): (&Slot, Dot, &Entry)| {
            let role: Role = text(entry).filter(|_| *slot == role)?.parse().ok()?;
            let ticket = object.entry(&ticket, dot).and_then(text).and_then(|text| parse_hex(&text, "a ticket").ok());
            let voucher = object.entry(&voucher, dot).and_then(text).and_then(read_voucher);
            Some((role, entry.depth, dot, ticket, voucher))
        };
        let grants = object.entries().filter_map(grant);
        let counts = if planted!("weakest-grant-counts") { grants.min() } else { grants.max() };
        let (role, .., ticket, voucher) = counts.filter(|_| object.is_visible())?;
        Some(Self { device, role, ticket, voucher })
    }
}

/// Everything that decides who may do what in a space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    creator: DeviceId,
    /// The owner whose ticket led this node here. It is trusted because somebody showed this node that ticket, and it
    /// must be, since the grants that say so lie in the space itself.
    introducer: Option<DeviceId>,
    /// Who began the present revision: owners of it whatever is granted to them, like the creator of the space.
    began: BTreeSet<DeviceId>,
    /// The grants of the revision before, until those of the present one have come. They say whom to speak to, and
    /// nothing else: others may know of other ones.
    inherited: BTreeMap<DeviceId, Grant>,
    grants: BTreeMap<DeviceId, Grant>,
}

/// An event whose author may not do what it does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{device} may not write {what}")]
pub struct NotGranted {
    /// The author.
    pub device: DeviceId,
    /// What it tried to write.
    pub what: &'static str,
}

impl Access {
    /// The access of a space that was just created: its creator owns it.
    pub fn new(genesis: &Genesis) -> Self {
        let (began, inherited) = (BTreeSet::new(), BTreeMap::new());
        Self { creator: genesis.creator, introducer: None, began, inherited, grants: BTreeMap::new() }
    }

    /// Trusts the owner whose ticket led this node to the space.
    pub fn introduce(&mut self, introducer: Option<DeviceId>) {
        self.introducer = introducer;
    }

    /// Takes in who began the present revision.
    pub fn begin(&mut self, owners: impl Iterator<Item = DeviceId>) {
        self.began.extend(owners);
    }

    /// Takes in the grants of the revision before.
    pub fn inherit(&mut self, grants: impl IntoIterator<Item = Grant>) {
        self.inherited = grants.into_iter().map(|grant| (grant.device, grant)).collect();
    }

    /// Whether the grants of the present revision have not come yet.
    pub fn is_waiting(&self) -> bool {
        !self.inherited.is_empty()
    }

    /// Who created the space.
    pub fn creator(&self) -> DeviceId {
        self.creator
    }

    /// Every grant; those of the revision before, while those of the present one have not come.
    pub fn members(&self) -> impl Iterator<Item = &Grant> {
        self.grants.values().chain(self.inherited.values())
    }

    /// What was granted to `device` in the present revision.
    pub fn granted(&self, device: DeviceId) -> Option<Role> {
        self.grants.get(&device).map(|grant| grant.role)
    }

    /// Whether `device` may know of the space.
    pub fn may_see(&self, device: DeviceId) -> bool {
        self.role(device).is_some() || self.inherited.contains_key(&device)
    }

    /// By whose word `device` owns the space, back to its creator; none if that cannot be shown.
    pub fn vouchers(&self, space: SpaceId, device: DeviceId) -> Option<Vec<Voucher>> {
        let (mut vouchers, mut owner) = (Vec::new(), device);
        while owner != self.creator {
            let voucher =
                self.members().find(|grant| grant.device == owner && grant.role == Role::Owner)?.voucher.clone()?;
            if vouchers.len() == VOUCHERS_MAX || !voucher.is_for(space, owner) {
                return None;
            }
            owner = voucher.by;
            vouchers.push(voucher);
        }
        Some(vouchers)
    }

    /// Takes in what the object of `$grants` under `key` shows now, [`Grant::from_object`].
    pub fn learn(&mut self, key: &str, grant: Option<Grant>) {
        let Some(device) = Grant::grantee(key) else { return };
        self.inherited.clear();
        match grant {
            Some(grant) => self.grants.insert(device, grant),
            None => self.grants.remove(&device),
        };
    }

    /// What `device` may do, if anything.
    pub fn role(&self, device: DeviceId) -> Option<Role> {
        let granted = self.granted(device);
        let introduced = (self.introducer == Some(device) && granted.is_none()).then_some(Role::Owner);
        if device == self.creator || self.began.contains(&device) { Some(Role::Owner) } else { granted.or(introduced) }
    }

    /// The role that `segments` show `device` to have, though nothing that is here says so: an owner granted it in an
    /// event that is not here yet. Each segment is of an owner that the one before it made one.
    ///
    /// An owner whose store was put back to an older state has forgotten whom it invited since. Whoever was, and comes
    /// back, shows the grant that the owner itself signed; otherwise neither could ever tell the other anything.
    pub fn shown(&self, device: DeviceId, segments: &[Segment]) -> Option<Role> {
        let mut vouched: BTreeSet<DeviceId> = BTreeSet::new();
        for (at, segment) in segments.iter().enumerate() {
            let author = segment.author().device;
            let is_owner = self.role(author) == Some(Role::Owner) || planted!("anybody-vouches");
            if !is_owner && !vouched.contains(&author) {
                continue;
            }
            let Some(next) = segments.get(at + 1) else { return granted(device, segment) };
            let next = next.author().device;
            if granted(next, segment) == Some(Role::Owner) {
                vouched.insert(next);
            }
        }
        None
    }

    /// Every device with a role.
    pub fn devices(&self) -> BTreeSet<DeviceId> {
        self.grants.keys().copied().chain([self.creator]).collect()
    }

    /// The devices that redeemed `ticket`.
    pub fn redeemers(&self, ticket: TicketId) -> impl Iterator<Item = DeviceId> + '_ {
        self.grants.values().filter(move |grant| grant.ticket == Some(ticket)).map(|grant| grant.device)
    }

    /// Whether `device` may have written `event`: writers write objects, only owners write the node's own collections.
    pub fn permits(&self, device: DeviceId, event: &Event) -> Result<(), NotGranted> {
        let reserved = event.mutations.iter().any(|mutation| mutation.collection.is_reserved());
        match (self.role(device), reserved) {
            (Some(Role::Owner), _) | (Some(Role::Writer), false) => Ok(()),
            (Some(Role::Writer), true) if planted!("writer-grants") => Ok(()),
            (Some(Role::Reader), false) if planted!("reader-is-believed") => Ok(()),
            (_, true) => Err(NotGranted { device, what: "grants" }),
            (_, false) => Err(NotGranted { device, what: "objects" }),
        }
    }
}

/// The role that a segment grants a device.
fn granted(device: DeviceId, segment: &Segment) -> Option<Role> {
    let (collection, key) = (CollectionName::grants(), Grant::key(device));
    let mut object = Object::new();
    for event in segment.events() {
        let of_device = event.mutations.iter().filter(|m| m.collection == collection && m.key == key);
        of_device.for_each(|mutation| mutation.apply_to(&mut object, event.dot, event.depth));
    }
    Grant::from_object(key.as_str(), &object).map(|grant| grant.role)
}

/// The longest row of grants, each by an owner that the one before made one, that is shown or looked at.
pub const CREDENTIALS_MAX: usize = 16;

/// An invitation to a space, signed by one of its owners. Whoever holds the text can redeem it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// Names this ticket among others.
    pub id: TicketId,
    /// How the space began.
    pub genesis: Genesis,
    /// What the redeemer will be allowed to do.
    pub role: Role,
    /// How many devices may redeem it.
    pub uses: u32,
    /// When it stops being valid, in milliseconds since 1970. For people and policy only: it orders nothing.
    pub expires_ms: u64,
    /// The owner that signed it.
    pub inviter: DeviceId,
    /// Where the inviter can be reached: `host:port`, the likeliest first.
    pub addresses: Vec<String>,
    /// What the space is called, for people.
    pub name: String,
}

/// A ticket with the signature that makes it one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedTicket {
    ticket: Ticket,
    #[serde(with = "codec::signature")]
    signature: [u8; 64],
}

/// Text that is no ticket, or not a genuine one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidTicket {
    /// Not the text of a ticket.
    #[error("this is not a ticket, or a part of it is missing")]
    Syntax,
    /// Its inviter did not sign it.
    #[error("this ticket is forged: its inviter did not sign it")]
    Forged,
}

const TICKET_PREFIX: &str = "thence1";

impl SignedTicket {
    /// Signs a ticket; `key` is its inviter's.
    pub fn sign(ticket: Ticket, key: &DeviceKey) -> Self {
        let signature = key.sign(&Self::message(&ticket));
        Self { ticket, signature }
    }

    /// The ticket. Its signature was verified when this was made.
    pub fn ticket(&self) -> &Ticket {
        &self.ticket
    }

    /// Reads a ticket from bytes that somebody sent.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidTicket> {
        let signed: Self = codec::decode("ticket", bytes).map_err(|_| InvalidTicket::Syntax)?;
        let genuine = signed.ticket.inviter.verifies(&Self::message(&signed.ticket), &signed.signature);
        if genuine || planted!("ticket-unsigned") { Ok(signed) } else { Err(InvalidTicket::Forged) }
    }

    /// The bytes that [`SignedTicket::from_bytes`] reads.
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    fn message(ticket: &Ticket) -> [u8; 32] {
        *blake3::Hasher::new_derive_key("thence 1 ticket").update(&codec::encode(ticket)).finalize().as_bytes()
    }
}

impl fmt::Display for SignedTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{TICKET_PREFIX}{}", BASE32_NOPAD.encode(&self.to_bytes()).to_ascii_lowercase())
    }
}

impl FromStr for SignedTicket {
    type Err = InvalidTicket;

    fn from_str(text: &str) -> Result<Self, InvalidTicket> {
        let encoded = text.trim().strip_prefix(TICKET_PREFIX).ok_or(InvalidTicket::Syntax)?;
        let bytes = BASE32_NOPAD.decode(encoded.to_ascii_uppercase().as_bytes());
        Self::from_bytes(&bytes.map_err(|_| InvalidTicket::Syntax)?)
    }
}

/// The collection and key of the object that says what a space is called.
pub fn about() -> (CollectionName, ObjectKey) {
    let key = "about".parse().unwrap_or_else(|_| unreachable!("five letters are a key"));
    (CollectionName::about(), key)
}
