//! The words of the command line, with the help that explains them. What they mean is [`meaning`](super::meaning)'s
//! business.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::config::{Flags, HttpFlags, ListenAddress, LogFormat};
use crate::duration;
use crate::model::{CollectionName, DeviceId, Role};
use crate::relay::{Origin, Policy, TenantName};
use crate::transport::PeerAddress;

const TEACH: &str = "\
On the first device:
  thence node                    run a node, so that others can reach this device
  thence space create notes      in another terminal: a space to keep objects in
  thence put notes todo milk '{\"done\":false}'
                                 write an object: collection todo, key milk
  thence invite notes            print a ticket for another device
On the other:
  thence init
  thence join TICKET             take part in the space
  thence node                    keep it in step from now on
  thence status                  what is synced with whom, what is not yet, and why

For phones, browsers and scripts:
  thence relay                   a node that they reach over HTTP

Everything works offline too. A command asks the running node of the data
folder if there is one, and otherwise opens the store itself.

A setting is taken from the first of these that has it:
  flags
  THENCE_DATA, THENCE_LISTEN, THENCE_PEERS, THENCE_CLUSTER_PEERS, THENCE_JSON,
  THENCE_LOG, THENCE_LOG_FORMAT, THENCE_CACHE_MIB, THENCE_CONFIG, and for a relay
  THENCE_HTTP, THENCE_TLS_CERT, THENCE_TLS_KEY, THENCE_HTTP_INSECURE, THENCE_CORS
  in the environment
  data, listen, peers, cluster_peers, json, log, log_format, cache_mib, http,
  tls_cert, tls_key, http_insecure, cors in the --config file

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 timed out, 4 not found.";

/// Keep objects on many devices, offline first: every write is kept, every device converges
#[derive(Debug, Parser)]
#[command(
    name = "thence",
    version,
    after_help = TEACH,
    arg_required_else_help = true,
    subcommand_required = true,
    max_term_width = 110
)]
pub struct Arguments {
    #[command(flatten)]
    global: Global,
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

#[derive(Debug, Args)]
struct Global {
    /// The data folder [env: THENCE_DATA] [default: the platform's folder for data]
    #[arg(long, value_name = "DIR", global = true, help_heading = "Everywhere")]
    data: Option<PathBuf>,
    /// Print JSON; errors too [env: THENCE_JSON]
    #[arg(long, global = true, help_heading = "Everywhere")]
    json: bool,
    /// Read further settings from a file [env: THENCE_CONFIG]
    #[arg(long, value_name = "FILE.toml", global = true, help_heading = "Everywhere")]
    config: Option<PathBuf>,
    /// Log to stderr as text or json; THENCE_LOG says what, such as info or thence=debug
    #[arg(
        long,
        value_name = "FORMAT",
        value_enum,
        hide_possible_values = true,
        global = true,
        help_heading = "Everywhere"
    )]
    log_format: Option<LogFormat>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Make the data folder a new device and print its id
    ///
    /// Running it again changes nothing and prints the same id. `thence node` does it by itself.
    #[command(after_help = "Example:\n  thence init")]
    Init,
    /// Print the id of this device
    #[command(after_help = "Example:\n  thence id")]
    Id,
    /// Run a node: keep this device in step with its peers until it is told to stop
    ///
    /// The first line on stdout is `ready DEVICE_ID ADDR:PORT`, or with --json
    /// `{"ready":{"address":…,"device":…}}`. Ctrl-C and SIGTERM let it finish what it is doing.
    #[command(after_help = "Example:\n  thence node --listen 0.0.0.0:7117 --peer DEVICE_ID@192.168.1.20:7117")]
    Node(NodeArguments),
    /// Run a relay: a node that also serves phones, browsers and scripts over HTTP
    ///
    /// Everything that `thence node` does, and HTTP beside it. The first line on stdout is
    /// `ready DEVICE_ID ADDR:PORT URL`, with the address for nodes and the URL for everybody else; with --json the URL is
    /// one member more.
    ///
    /// Tokens travel with every request. So without TLS it serves this machine only, say a proxy on it that ends TLS; give
    /// it a certificate and a key to be reached from elsewhere. Ctrl-C and SIGTERM let requests that are under way end, and
    /// tell new ones to come again.
    #[command(
        after_help = "Examples:\n  thence relay\n  thence relay --http 0.0.0.0:443 --tls-cert fullchain.pem --tls-key privkey.pem\n  thence relay --cors https://app.example.org\n  curl http://127.0.0.1:7118/health/ready"
    )]
    Relay(RelayArguments),
    /// Remember, forget or list the devices to keep in step with
    #[command(after_help = "Example:\n  thence peer add DEVICE_ID@relay.example.org:7117")]
    Peer {
        /// What to do with peers.
        #[command(subcommand)]
        action: PeerAction,
    },
    /// Create or list spaces, the units that are shared
    #[command(after_help = "Example:\n  thence space create notes")]
    Space {
        /// What to do with spaces.
        #[command(subcommand)]
        action: SpaceAction,
    },
    /// Print a ticket that lets another device into a space
    ///
    /// Whoever holds the text can redeem it, so hand it over as you would a key. The node of this device must be
    /// running when that happens.
    #[command(
        after_help = "Examples:\n  thence invite notes\n  thence invite notes --role reader --uses 5 --expires 12h"
    )]
    Invite(InviteArguments),
    /// Make, list or end the tokens with which clients use this relay
    #[command(after_help = "Example:\n  thence token create --customer acme --role writer --expires 90d")]
    Token {
        /// What to do with tokens.
        #[command(subcommand)]
        action: TokenAction,
    },
    /// Show or set what clients of this relay may use: sizes, rates, quotas, and how long things are kept
    #[command(
        after_help = "Examples:\n  thence policy show --customer acme\n  thence policy set --customer acme --database notes rows 100000"
    )]
    Policy {
        /// What to do with policies.
        #[command(subcommand)]
        action: PolicyAction,
    },
    /// List the customers of this relay, or show one with its databases
    #[command(after_help = "Example:\n  thence customer show acme")]
    Customer {
        /// What to do with customers.
        #[command(subcommand)]
        action: CustomerAction,
    },
    /// List what is done behind: the removal of what was wiped
    #[command(after_help = "Examples:\n  thence job list\n  thence job show wipe-4b3a…-2 --json")]
    Job {
        /// What to do with jobs.
        #[command(subcommand)]
        action: JobAction,
    },
    /// Redeem a ticket: take part in the space that it leads to
    #[command(after_help = "Example:\n  thence join thence1…")]
    Join {
        /// The line that `thence invite` printed
        ticket: String,
    },
    /// Write an object: the members of the JSON object become its fields, whatever was there before
    ///
    /// Nothing is printed. A put counts as a write even if the object looks the same afterwards: it also beats a delete
    /// that somebody else made meanwhile.
    #[command(
        after_help = "Examples:\n  thence put notes todo milk '{\"done\":false}'\n  thence put notes todo milk - < milk.json"
    )]
    Put(FieldsArguments),
    /// Write some fields of an object and leave the others; maps are merged member by member
    #[command(after_help = "Example:\n  thence patch notes todo milk '{\"done\":true}'")]
    Patch(FieldsArguments),
    /// Remove fields of an object
    #[command(after_help = "Example:\n  thence unset notes todo milk done /price/currency")]
    Unset {
        #[command(flatten)]
        object: ObjectArguments,
        /// Names of fields, or JSON pointers to nested ones
        #[arg(required = true, value_name = "FIELD", allow_negative_numbers = true)]
        fields: Vec<String>,
    },
    /// Add to a counter; increments of all devices count
    #[command(
        after_help = "Examples:\n  thence increment notes todo milk litres 2\n  thence increment notes todo milk litres -1"
    )]
    Increment {
        #[command(flatten)]
        object: ObjectArguments,
        /// The counter: a field that does not exist yet, or a counter
        #[arg(allow_negative_numbers = true)]
        field: String,
        /// How much to add: a whole number, which may be negative
        #[arg(value_name = "N", allow_negative_numbers = true)]
        by: i64,
    },
    /// Add an element to a set
    #[command(after_help = "Example:\n  thence add notes todo milk tags '\"dairy\"'")]
    Add(ElementArguments),
    /// Remove an element from a set; one that is added elsewhere meanwhile stays
    #[command(after_help = "Example:\n  thence remove notes todo milk tags '\"dairy\"'")]
    Remove(ElementArguments),
    /// Print an object
    #[command(after_help = "Example:\n  thence get notes todo milk")]
    Get {
        #[command(flatten)]
        object: ObjectArguments,
    },
    /// Delete objects: all of them, or none if one is not there
    #[command(after_help = "Example:\n  thence delete notes todo milk bread")]
    Delete {
        /// The space, by name or id
        space: String,
        /// The collection
        collection: String,
        /// The objects' keys
        #[arg(required = true, value_name = "KEY", allow_negative_numbers = true)]
        keys: Vec<String>,
    },
    /// List the keys of the objects
    #[command(after_help = "Examples:\n  thence list notes\n  thence list notes todo")]
    List(ScopeArguments),
    /// Write every line of a JSON lines file as an object
    ///
    /// Each object shows its line afterwards; only what differs is written, so it can be repeated and interrupted at
    /// will. Objects that are not in the file stay as they are.
    #[command(
        after_help = "Examples:\n  thence import atlas places places.jsonl --key code\n  thence import atlas places - --key code < places.jsonl"
    )]
    Import(ImportArguments),
    /// Print all objects as JSON lines, sorted
    ///
    /// Devices that know the same print the same bytes.
    #[command(after_help = "Examples:\n  thence export notes > notes.jsonl\n  thence export notes todo")]
    Export(ScopeArguments),
    /// List the fields that several devices wrote without knowing of each other
    #[command(after_help = "Example:\n  thence conflicts notes")]
    Conflicts {
        /// The space, by name or id
        space: String,
    },
    /// Decide a conflict: write a value over all those that the field holds
    #[command(after_help = "Example:\n  thence resolve notes todo milk litres 3")]
    Resolve(ElementArguments),
    /// List, restore or discard edits that lost to a delete
    #[command(
        after_help = "Examples:\n  thence lost notes\n  thence lost restore notes todo milk\n  thence lost discard notes todo milk",
        args_conflicts_with_subcommands = true,
        subcommand_negates_reqs = true
    )]
    Lost {
        /// The space whose lost edits are listed, by name or id
        #[arg(required = true)]
        space: Option<String>,
        /// What to do with one of them.
        #[command(subcommand)]
        action: Option<LostAction>,
    },
    /// Print one JSON line per change, as it lands
    ///
    /// Each has its position on this device; --from goes on after one. Each object stands at its latest change.
    #[command(after_help = "Examples:\n  thence watch notes\n  thence watch notes --from 0")]
    Watch {
        /// The space, by name or id
        space: String,
        /// Begin with what comes after this position; 0 is the beginning [default: what comes from now on]
        #[arg(long, value_name = "POSITION")]
        from: Option<u64>,
    },
    /// Write everything that is kept here to a file, as it is at this instant
    ///
    /// A running node goes on meanwhile. The file holds all spaces with their history, and no key, replica id, peer or
    /// address: keep `device.key` elsewhere. Nothing is overwritten.
    #[command(after_help = "Example:\n  thence backup thence-2026-11-22.backup")]
    Backup {
        /// The file to make
        file: PathBuf,
    },
    /// Replace the store of the data folder with what a backup holds
    ///
    /// An empty or new folder becomes a new device; a folder with a device.key goes on as that device. Events since the
    /// backup that peers have come back from them. The store that was there is kept aside, and the output says where.
    #[command(after_help = "Example:\n  thence restore thence-2026-11-22.backup")]
    Restore {
        /// The file that `thence backup` made
        file: PathBuf,
    },
    /// Make a damaged store anew from what can be read of it
    ///
    /// Every signed run of events that is whole is kept; what is not comes back from peers that have it, with the next
    /// sync. The damaged store is kept aside, and the output says where, and how much could not be read.
    #[command(after_help = "Example:\n  thence repair && thence sync")]
    Repair,
    /// Say what is synced with whom, what is not yet, and why
    #[command(after_help = "Examples:\n  thence status\n  thence status --check && echo all is synced")]
    Status {
        /// Exit with 1 when something is not as it should be
        #[arg(long)]
        check: bool,
    },
    /// Dial every known peer now and wait until all that answer are in step
    #[command(after_help = "Example:\n  thence sync --timeout 120")]
    Sync {
        /// How long to wait, in seconds
        #[arg(long, value_name = "S", default_value = "60", value_parser = duration::parse_seconds)]
        timeout: Duration,
    },
    /// Print the completions for a shell
    #[command(after_help = "Example:\n  thence completions bash > ~/.local/share/bash-completion/completions/thence")]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page, or write a page for every command into a folder
    #[command(after_help = "Examples:\n  thence manual | man -l -\n  thence manual ~/.local/share/man/man1")]
    Manual {
        /// The folder, made if need be; without it the page of the program itself is printed
        #[arg(value_name = "DIR")]
        folder: Option<PathBuf>,
    },
}

/// Of `node`.
#[derive(Debug, Args)]
pub struct NodeArguments {
    /// Where to listen, over UDP; port 0 picks a free one [env: THENCE_LISTEN] [default: 0.0.0.0:7117]
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<ListenAddress>,
    /// A device to dial; may be repeated, and is remembered [env: THENCE_PEERS]
    #[arg(long = "peer", value_name = "DEVICE_ID@ADDR:PORT")]
    pub peers: Vec<PeerAddress>,
    /// A node to share every space with, if it is started with this one as its cluster peer too; may be repeated. It is
    /// remembered as an ordinary peer [env: THENCE_CLUSTER_PEERS]
    #[arg(long = "cluster-peer", value_name = "DEVICE_ID@ADDR:PORT")]
    pub cluster_peers: Vec<PeerAddress>,
}

/// Of `relay`.
#[derive(Debug, Args)]
pub struct RelayArguments {
    #[command(flatten)]
    pub node: NodeArguments,
    /// Where to serve HTTP, over TCP; port 0 picks a free one [env: THENCE_HTTP] [default: 127.0.0.1:7118]
    #[arg(long, value_name = "ADDR:PORT")]
    pub http: Option<ListenAddress>,
    /// The certificate for TLS with those that lead to its root, in PEM; read once, at the start [env: THENCE_TLS_CERT]
    #[arg(long, value_name = "FILE.pem")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key, in PEM [env: THENCE_TLS_KEY]
    #[arg(long, value_name = "FILE.pem")]
    pub tls_key: Option<PathBuf>,
    /// Serve other machines without TLS: for a network of your own, behind a proxy that ends TLS
    /// [env: THENCE_HTTP_INSECURE]
    #[arg(long, conflicts_with_all = ["tls_cert", "tls_key"])]
    pub http_insecure: bool,
    /// A web origin whose pages may speak to the relay from a browser; may be repeated [env: THENCE_CORS]
    #[arg(long, value_name = "ORIGIN")]
    pub cors: Vec<Origin>,
}

/// Of `peer`.
#[derive(Debug, Subcommand)]
pub enum PeerAction {
    /// Remember a device, and dial it
    Add {
        /// The device and where it is
        #[arg(value_name = "DEVICE_ID@ADDR:PORT")]
        peer: PeerAddress,
    },
    /// Forget a device
    Remove {
        /// The device
        #[arg(value_name = "DEVICE_ID", value_parser = device)]
        device: DeviceId,
    },
    /// List the remembered and the connected devices
    List,
}

/// Of `token`.
#[derive(Debug, Subcommand)]
pub enum TokenAction {
    /// Print a new token, alone; it is shown this once and kept as a hash only
    #[command(
        after_help = "Examples:\n  thence token create --customer acme\n  thence token create --customer acme --database notes --role reader --expires 90d"
    )]
    Create {
        /// The customer whose databases it opens
        #[arg(long, value_name = "C")]
        customer: TenantName,
        /// The only database that it opens; all of the customer's if not given
        #[arg(long, value_name = "D")]
        database: Option<TenantName>,
        /// What it allows: owner, writer or reader
        #[arg(long, default_value = "writer")]
        role: Role,
        /// How long it is valid: 12h, 90d; for ever if not given
        #[arg(long, value_name = "TIME", value_parser = duration::parse)]
        expires: Option<Duration>,
    },
    /// List the tokens, without what is secret of them
    #[command(after_help = "Example:\n  thence token list")]
    List,
    /// End a token: whoever uses it is refused from then on
    Revoke {
        /// Its id, as `thence token list` shows it
        id: String,
    },
}

/// Of `job`.
#[derive(Debug, Subcommand)]
pub enum JobAction {
    /// List the jobs that are under way, and those that ended not long ago
    List,
    /// Show one job
    Show {
        /// Its id, as `thence job list` shows it
        id: String,
    },
}

/// Of `policy`.
#[derive(Debug, Subcommand)]
pub enum PolicyAction {
    /// Show what holds, and where that was set
    #[command(
        after_help = "Examples:\n  thence policy show\n  thence policy show --customer acme --database notes rows"
    )]
    Show {
        #[command(flatten)]
        scope: PolicyArguments,
        /// Only this one
        #[arg(value_name = "NAME")]
        policy: Option<Policy>,
    },
    /// Set a policy; it holds from the next request on
    ///
    /// What is set for a table holds before what is set for its database, that before its customer, and that before what is
    /// set for all.
    #[command(
        after_help = "Examples:\n  thence policy set batch_rows 200\n  thence policy set --customer acme bytes 10GiB\n  thence policy set --customer acme rows default"
    )]
    Set {
        #[command(flatten)]
        scope: PolicyArguments,
        /// Which one, as `thence policy show` lists them
        #[arg(value_name = "NAME")]
        policy: Policy,
        /// A number (of bytes also such as 64KiB), `none` for no limit, or `default` to set it no more
        #[arg(value_name = "VALUE", allow_negative_numbers = true)]
        value: String,
    },
}

/// For whom a policy is; for all if nothing is named.
#[derive(Debug, Args)]
pub struct PolicyArguments {
    /// For this customer
    #[arg(long, value_name = "C")]
    pub customer: Option<TenantName>,
    /// For this database of the customer
    #[arg(long, value_name = "D", requires = "customer")]
    pub database: Option<TenantName>,
    /// For this table of the database
    #[arg(long, value_name = "T", requires = "database", value_parser = CollectionName::user)]
    pub table: Option<CollectionName>,
}

/// Of `customer`.
#[derive(Debug, Subcommand)]
pub enum CustomerAction {
    /// List the customers and how many databases each has
    List,
    /// Show the databases of a customer
    Show {
        /// The customer
        customer: TenantName,
    },
    /// Show who deleted, granted, restored or set what of a customer, and when, the oldest first
    #[command(after_help = "Examples:\n  thence customer audit acme\n  thence customer audit acme --limit 1000 --json")]
    Audit {
        /// The customer
        customer: TenantName,
        /// So many entries at most, up to 1000
        #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u64).range(1..))]
        limit: u64,
        /// After the entry with this id
        #[arg(long, value_name = "ID")]
        after: Option<String>,
    },
}

/// A device id, also with the address after it, as it was added.
fn device(text: &str) -> Result<DeviceId, crate::model::IdSyntaxError> {
    text.split('@').next().unwrap_or_default().parse()
}

/// Of `space`.
#[derive(Debug, Subcommand)]
pub enum SpaceAction {
    /// Create a space that this device owns, and print its id
    Create {
        /// What it is called: 1 to 64 of the characters A-Z a-z 0-9 _ . -
        name: String,
    },
    /// List the spaces
    List,
    /// Take everything out of a space, for everybody
    ///
    /// Its name and who may do what stay. What others write before they hear of it is gone, too. The space is empty at
    /// once; `thence job list` tells how far its old rows are removed from the disk.
    #[command(after_help = "Example:\n  thence space wipe notes --yes")]
    Wipe {
        /// The space, by name or id
        space: String,
        /// Do it: nothing brings it back but a backup
        #[arg(long)]
        yes: bool,
        /// Only if it is at this revision: to be sure, in a script, that it is done once
        #[arg(long, value_name = "N")]
        revision: Option<u64>,
    },
}

/// Of `invite`.
#[derive(Debug, Args)]
pub struct InviteArguments {
    /// The space, by name or id
    pub space: String,
    /// What the other device may do: owner, writer or reader
    #[arg(long, default_value = "writer")]
    pub role: Role,
    /// How many devices may redeem the ticket
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..))]
    pub uses: u32,
    /// How long the ticket is valid: 30m, 12h, 7d
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = duration::parse)]
    pub expires: Duration,
}

/// An object.
#[derive(Debug, Args)]
pub struct ObjectArguments {
    /// The space, by name or id
    pub space: String,
    /// The collection
    pub collection: String,
    /// The object's key
    #[arg(allow_negative_numbers = true)]
    pub key: String,
}

/// An object and fields.
#[derive(Debug, Args)]
pub struct FieldsArguments {
    #[command(flatten)]
    pub object: ObjectArguments,
    /// A JSON object whose members are the fields; - reads it from stdin
    // Not called `json`: that is the flag which holds everywhere.
    #[arg(value_name = "JSON", allow_negative_numbers = true)]
    pub fields: String,
}

/// A field and a value.
#[derive(Debug, Args)]
pub struct ElementArguments {
    #[command(flatten)]
    pub object: ObjectArguments,
    /// The field: a name, or a JSON pointer to a nested one
    #[arg(allow_negative_numbers = true)]
    pub field: String,
    /// JSON; a text has its own quotes: '"text"'
    #[arg(value_name = "VALUE", allow_negative_numbers = true)]
    pub value: String,
}

/// A space, or one of its collections.
#[derive(Debug, Args)]
pub struct ScopeArguments {
    /// The space, by name or id
    pub space: String,
    /// Only this collection
    pub collection: Option<String>,
}

/// Of `import`.
#[derive(Debug, Args)]
pub struct ImportArguments {
    /// The space, by name or id
    pub space: String,
    /// The collection
    pub collection: String,
    /// A file with one JSON object per line; - reads stdin
    #[arg(value_name = "FILE.jsonl")]
    pub file: PathBuf,
    /// The field that is the object's key: a text or a whole number. It stays a field
    #[arg(long, value_name = "FIELD")]
    pub key: String,
}

/// Of `lost`.
#[derive(Debug, Subcommand)]
pub enum LostAction {
    /// Make the object visible again, with what was left of the edit
    Restore {
        #[command(flatten)]
        object: ObjectArguments,
    },
    /// Give the edit up
    Discard {
        #[command(flatten)]
        object: ObjectArguments,
    },
}

impl Arguments {
    /// The settings among the arguments.
    pub fn flags(&self) -> Flags {
        let Global { data, json, config, log_format } = &self.global;
        let (node, http) = match &self.action {
            Action::Node(node) => (Some(node), HttpFlags::default()),
            Action::Relay(RelayArguments { node, http, tls_cert, tls_key, http_insecure, cors }) => {
                let http = HttpFlags {
                    listen: *http,
                    tls_cert: tls_cert.clone(),
                    tls_key: tls_key.clone(),
                    insecure: *http_insecure,
                    cors: cors.clone(),
                };
                (Some(node), http)
            }
            _ => (None, HttpFlags::default()),
        };
        let (listen, peers, cluster_peers) = match node {
            Some(NodeArguments { listen, peers, cluster_peers }) => (*listen, peers.clone(), cluster_peers.clone()),
            None => (None, Vec::new(), Vec::new()),
        };
        let (data, config, json, log_format) = (data.clone(), config.clone(), *json, *log_format);
        Flags { data, config, json, log_format, listen, peers, cluster_peers, http }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(words: &[&str]) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from([&["thence"], words].concat())
    }

    #[test]
    fn the_definitions_hold_together() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn lost_takes_a_space_or_what_to_do() {
        let lost = |words: &[&str]| match parse(words).expect("usage").action {
            Action::Lost { space, action } => (space, action),
            other => unreachable!("{other:?}"),
        };
        assert!(matches!(lost(&["lost", "notes"]), (Some(space), None) if space == "notes"));
        let (space, action) = lost(&["lost", "restore", "notes", "todo", "milk"]);
        assert!(space.is_none());
        assert!(matches!(action, Some(LostAction::Restore { object }) if object.key == "milk"));
        for words in [&["lost"][..], &["lost", "restore", "notes"], &["lost", "notes", "todo"]] {
            assert!(parse(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn numbers_may_be_negative_and_flags_may_come_last() {
        let arguments = parse(&["increment", "s", "c", "-1", "n", "-2", "--json"]).expect("usage");
        assert!(arguments.flags().json);
        assert!(matches!(arguments.action, Action::Increment { object, by: -2, .. } if object.key == "-1"));
        assert!(parse(&["add", "s", "c", "k", "f", "-1.5e3"]).is_ok());
        assert!(parse(&["increment", "s", "c", "k", "n", "0.5"]).is_err());
    }

    #[test]
    fn every_command_teaches_with_an_example() {
        for command in Arguments::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example"), "{}", command.get_name());
            assert!(help.contains(&format!("thence {}", command.get_name())), "{help}");
        }
    }
}
