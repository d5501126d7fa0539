//! Settings, and which of them counts: a flag, else the `THENCE_*` environment, else the file named by `--config`,
//! else the default.
//!
//! **Invariant**: what is wrong is refused where it was written (the file, the variable), never silently replaced by
//! a default. An empty variable counts as absent, since that is how service managers say "not set".
//!
//! It does not look for a configuration file by itself, so what a command does never depends on where it is run.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Deserialize;

use crate::relay::Origin;
use crate::transport::PeerAddress;

/// Where a node listens unless told otherwise: every address of the machine.
pub const LISTEN_DEFAULT: &str = "0.0.0.0:7117";
/// Where a relay serves HTTP unless told otherwise: this machine only.
pub const HTTP_DEFAULT: &str = "127.0.0.1:7118";
/// How many MiB of pages the store keeps in memory unless told otherwise.
pub const CACHE_MIB_DEFAULT: u32 = 64;

/// How logs are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("use text or json".to_owned()),
        }
    }
}

/// What was said on the command line.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// The data folder.
    pub data: Option<PathBuf>,
    /// The file with further settings.
    pub config: Option<PathBuf>,
    /// Whether answers are wanted as JSON.
    pub json: bool,
    /// How logs are written.
    pub log_format: Option<LogFormat>,
    /// Where a node listens.
    pub listen: Option<ListenAddress>,
    /// Whom a node dials.
    pub peers: Vec<PeerAddress>,
    /// Whom a node counts as cluster peers.
    pub cluster_peers: Vec<PeerAddress>,
    /// Where and how a relay serves HTTP.
    pub http: HttpFlags,
}

/// Where to listen: an IP address and a port. Names are not looked up, since one may stand for several addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ListenAddress(SocketAddr);

/// A text that says of no address to listen at it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write an IP address and a port, such as 127.0.0.1:{port} or [::1]:{port}; names are not looked up")]
pub struct InvalidListenAddress {
    port: u16,
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> Self {
        Self(address)
    }
}

impl From<ListenAddress> for SocketAddr {
    fn from(ListenAddress(address): ListenAddress) -> Self {
        address
    }
}

impl FromStr for ListenAddress {
    type Err = InvalidListenAddress;

    fn from_str(text: &str) -> Result<Self, InvalidListenAddress> {
        // What was right about it is in the example.
        let is_one = |host: &str| !host.contains(':') || host.ends_with(']');
        let port = text.rsplit_once(':').map_or(Some(text), |(host, port)| is_one(host).then_some(port));
        let port = port.and_then(|port| port.parse().ok()).unwrap_or(7118);
        text.parse().map(Self).map_err(|_| InvalidListenAddress { port })
    }
}

impl TryFrom<String> for ListenAddress {
    type Error = InvalidListenAddress;

    fn try_from(text: String) -> Result<Self, InvalidListenAddress> {
        text.parse()
    }
}

/// What was said on the command line about HTTP.
#[derive(Clone, Debug, Default)]
pub struct HttpFlags {
    /// Where to listen.
    pub listen: Option<ListenAddress>,
    /// The file with the certificate.
    pub tls_cert: Option<PathBuf>,
    /// The file with its key.
    pub tls_key: Option<PathBuf>,
    /// Whether to serve others than this machine without TLS.
    pub insecure: bool,
    /// Whose pages may speak to it from a browser.
    pub cors: Vec<Origin>,
}

/// Where and how a relay serves HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSettings {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The files with the certificate and its key, if it is to be TLS.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Whether to serve others than this machine without TLS.
    pub insecure: bool,
    /// Whose pages may speak to it from a browser.
    pub cors: Vec<Origin>,
}

/// What counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The data folder.
    pub data: PathBuf,
    /// Whether answers are wanted as JSON.
    pub json: bool,
    /// What is logged, as directives of `tracing`; none for the command's own default.
    pub log: Option<String>,
    /// How logs are written.
    pub log_format: LogFormat,
    /// Where a node listens.
    pub listen: SocketAddr,
    /// Whom a node dials.
    pub peers: Vec<PeerAddress>,
    /// Whom a node counts as cluster peers.
    pub cluster_peers: Vec<PeerAddress>,
    /// Where and how a relay serves HTTP.
    pub http: HttpSettings,
    /// How much memory the store may use to keep pages, in bytes.
    pub cache_bytes: usize,
}

/// Settings that cannot be used. Nothing was done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read, or says something that makes no sense.
    #[error("the settings in {} cannot be used: {what}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        what: String,
    },
    /// A variable of the environment makes no sense.
    #[error("the environment variable {name} cannot be used: {what}")]
    Variable {
        /// Its name.
        name: &'static str,
        /// What is wrong.
        what: String,
    },
    /// Of a certificate and its key only one was given.
    #[error("TLS takes a certificate and its key, and only the {given} was given")]
    HalfOfTls {
        /// Which one.
        given: &'static str,
    },
    /// No folder was named, and the platform names none for this user.
    #[error("there is no home folder to keep data in")]
    NoHome,
}

/// The members of the file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Members {
    data: Option<PathBuf>,
    json: Option<bool>,
    log: Option<String>,
    log_format: Option<LogFormat>,
    listen: Option<ListenAddress>,
    peers: Option<Vec<PeerAddress>>,
    cluster_peers: Option<Vec<PeerAddress>>,
    cache_mib: Option<u32>,
    http: Option<ListenAddress>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    http_insecure: Option<bool>,
    cors: Option<Vec<Origin>>,
}

impl Members {
    fn read(path: &Path) -> Result<Self, ConfigError> {
        let wrong = |what: String| ConfigError::File { path: path.to_owned(), what };
        let bytes = fs::read(path).map_err(|error| wrong(error.to_string()))?;
        let text = String::from_utf8(bytes).map_err(|_| wrong("it is not text in UTF-8".to_owned()))?;
        let mut members: Self =
            toml::from_str(&text).map_err(|error| wrong(error.to_string().trim_end().to_owned()))?;
        // A path in a file means the same wherever a command is run.
        if let Some(folder) = path.parent() {
            for named in [&mut members.data, &mut members.tls_cert, &mut members.tls_key].into_iter().flatten() {
                *named = folder.join(&named);
            }
        }
        Ok(members)
    }
}

/// The environment, as a function from names to values.
struct Environment<'a>(&'a dyn Fn(&str) -> Option<OsString>);

impl Environment<'_> {
    fn path(&self, name: &str) -> Option<PathBuf> {
        (self.0)(name).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    fn text(&self, name: &'static str) -> Result<Option<String>, ConfigError> {
        let value = (self.0)(name).filter(|value| !value.is_empty());
        let wrong = |_| ConfigError::Variable { name, what: "it is not text in UTF-8".to_owned() };
        value.map(OsString::into_string).transpose().map_err(wrong)
    }

    fn parsed<T>(&self, name: &'static str) -> Result<Option<T>, ConfigError>
    where
        T: FromStr,
        T::Err: std::fmt::Display,
    {
        let wrong = |text: &str, error: T::Err| ConfigError::Variable { name, what: format!("{text:?}: {error}") };
        self.text(name)?.map(|text| text.trim().parse().map_err(|error| wrong(&text, error))).transpose()
    }

    fn flag(&self, name: &'static str) -> Result<Option<bool>, ConfigError> {
        let wrong = |text| ConfigError::Variable { name, what: format!("{text:?}: use true or false") };
        match self.text(name)?.as_deref() {
            None => Ok(None),
            Some("1" | "true" | "yes") => Ok(Some(true)),
            Some("0" | "false" | "no") => Ok(Some(false)),
            Some(other) => Err(wrong(other)),
        }
    }

    fn list<T>(&self, name: &'static str) -> Result<Option<Vec<T>>, ConfigError>
    where
        T: FromStr,
        T::Err: std::fmt::Display,
    {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let wrong = |error: T::Err| ConfigError::Variable { name, what: error.to_string() };
        let parts = text.split([',', ' ']).filter(|part| !part.is_empty());
        parts.map(|part| part.parse().map_err(wrong)).collect::<Result<_, _>>().map(Some)
    }
}

impl Settings {
    /// Finds out what counts. `environment` is handed in so that this depends on nothing but its arguments and the
    /// file.
    ///
    /// # Errors
    /// [`ConfigError`] names the file or variable that is wrong, whether or not something else would have counted.
    pub fn gather(flags: Flags, environment: &dyn Fn(&str) -> Option<OsString>) -> Result<Self, ConfigError> {
        let environment = Environment(environment);
        let config = flags.config.or_else(|| environment.path("THENCE_CONFIG"));
        let file = config.as_deref().map(Members::read).transpose()?.unwrap_or_default();

        let json = environment.flag("THENCE_JSON")?.or(file.json);
        let log_format = environment.parsed("THENCE_LOG_FORMAT")?.or(file.log_format);
        let listen = environment.parsed("THENCE_LISTEN")?.or(file.listen);
        let peers = environment.list("THENCE_PEERS")?.or(file.peers);
        let cluster_peers = environment.list("THENCE_CLUSTER_PEERS")?.or(file.cluster_peers);
        let cache_mib = environment.parsed("THENCE_CACHE_MIB")?.or(file.cache_mib).unwrap_or(CACHE_MIB_DEFAULT);

        let data = flags.data.or_else(|| environment.path("THENCE_DATA")).or(file.data);
        let data = match data {
            Some(data) => data,
            None => Self::platform_folder().ok_or(ConfigError::NoHome)?,
        };
        let listen = flags.listen.or(listen);
        let http = HttpSettings {
            listen: flags
                .http
                .listen
                .or(environment.parsed("THENCE_HTTP")?)
                .or(file.http)
                .map_or_else(|| SocketAddr::from(([127, 0, 0, 1], 7118)), SocketAddr::from),
            tls: both_of_tls(
                flags.http.tls_cert.or_else(|| environment.path("THENCE_TLS_CERT")).or(file.tls_cert),
                flags.http.tls_key.or_else(|| environment.path("THENCE_TLS_KEY")).or(file.tls_key),
            )?,
            insecure: flags.http.insecure
                || environment.flag("THENCE_HTTP_INSECURE")?.or(file.http_insecure).unwrap_or(false),
            cors: flag_or(flags.http.cors, environment.list("THENCE_CORS")?.or(file.cors)),
        };
        Ok(Self {
            data,
            json: flags.json || json.unwrap_or(false),
            log: environment.text("THENCE_LOG")?.or(file.log),
            log_format: flags.log_format.or(log_format).unwrap_or_default(),
            listen: listen.map_or_else(|| SocketAddr::from(([0, 0, 0, 0], 7117)), SocketAddr::from),
            peers: flag_or(flags.peers, peers),
            cluster_peers: flag_or(flags.cluster_peers, cluster_peers),
            http,
            cache_bytes: usize::try_from(u64::from(cache_mib.max(1)) << 20).unwrap_or(usize::MAX),
        })
    }

    fn platform_folder() -> Option<PathBuf> {
        let base = etcetera::choose_base_strategy().ok()?;
        Some(etcetera::BaseStrategy::data_dir(&base).join("thence"))
    }
}

/// A list from the flags, unless it was not given there.
fn flag_or<T>(flag: Vec<T>, other: Option<Vec<T>>) -> Vec<T> {
    if flag.is_empty() { other.unwrap_or_default() } else { flag }
}

/// One without the other is a mistake, and serving without TLS would hide it.
fn both_of_tls(cert: Option<PathBuf>, key: Option<PathBuf>) -> Result<Option<(PathBuf, PathBuf)>, ConfigError> {
    match (cert, key) {
        (Some(cert), Some(key)) => Ok(Some((cert, key))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(ConfigError::HalfOfTls { given: "certificate" }),
        (None, Some(_)) => Err(ConfigError::HalfOfTls { given: "key" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

    /// Settings from a file with this text, these variables and these flags.
    fn gather(file: &str, variables: &[(&str, &str)], flags: Flags) -> Result<Settings, ConfigError> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("thence.toml");
        fs::write(&path, file).expect("a file");
        let find = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
        let mut settings = Settings::gather(Flags { config: Some(path), ..flags }, &find)?;
        if let Ok(below) = settings.data.strip_prefix(folder.path()) {
            settings.data = Path::new("FOLDER").join(below);
        }
        Ok(settings)
    }

    #[test]
    fn the_default_port_is_the_documented_one() {
        let settings = Settings::gather(Flags { data: Some("d".into()), ..Flags::default() }, &|_| None);
        let settings = settings.expect("settings");
        assert_eq!(settings.listen.to_string(), LISTEN_DEFAULT);
        assert_eq!(settings.http.listen.to_string(), HTTP_DEFAULT);
        assert!(settings.http.listen.ip().is_loopback(), "without TLS it is for this machine only");
    }

    #[test]
    fn http_is_set_like_everything_else() {
        let file = "http = \"127.0.0.1:1\"\ntls_cert = \"c.pem\"\ntls_key = \"k.pem\"\nhttp_insecure = true\n\
                    cors = [\"https://a.example\"]\n";
        let variables = [("THENCE_HTTP", "127.0.0.1:2"), ("THENCE_CORS", "https://b.example, http://c.example:3000")];
        let flags = |listen| Flags { http: HttpFlags { listen, ..HttpFlags::default() }, ..Flags::default() };

        let by_file = gather(file, &[], Flags::default()).expect("settings").http;
        assert_eq!((by_file.listen.port(), by_file.insecure), (1, true));
        let (cert, key) = by_file.tls.expect("both");
        assert!(cert.is_absolute() && cert.ends_with("c.pem") && key.ends_with("k.pem"), "relative to the file");
        assert_eq!(by_file.cors.iter().map(Origin::as_str).collect::<Vec<_>>(), ["https://a.example"]);
        let by_environment = gather(file, &variables, Flags::default()).expect("settings").http;
        assert_eq!(by_environment.listen.port(), 2);
        assert_eq!(by_environment.cors.len(), 2);
        let by_flag =
            gather(file, &variables, flags(Some(SocketAddr::from(([127, 0, 0, 1], 3)).into()))).expect("settings");
        assert_eq!(by_flag.http.listen.port(), 3);
        for half in ["tls_cert = \"c.pem\"", "tls_key = \"k.pem\""] {
            assert!(matches!(gather(half, &[], Flags::default()), Err(ConfigError::HalfOfTls { .. })), "{half}");
        }
    }

    #[test]
    fn a_flag_beats_the_environment_and_the_environment_beats_the_file() {
        let file = "data = \"of-file\"\nlisten = \"127.0.0.1:1\"\nlog = \"info\"\nlog_format = \"json\"\n";
        let variables = [("THENCE_DATA", "of-environment"), ("THENCE_LISTEN", "127.0.0.1:2"), ("THENCE_LOG", "")];
        let flags = Flags { data: Some("of-flag".into()), ..Flags::default() };

        let by_file = gather(file, &[], Flags::default()).expect("settings");
        assert_eq!(by_file.data, Path::new("FOLDER/of-file"), "relative to the file");
        assert_eq!((by_file.listen.port(), by_file.log_format), (1, LogFormat::Json));
        let by_environment = gather(file, &variables, Flags::default()).expect("settings");
        assert_eq!(by_environment.data, Path::new("of-environment"));
        assert_eq!(by_environment.listen.port(), 2);
        assert_eq!(by_environment.log.as_deref(), Some("info"), "an empty variable is none");
        let by_flag = gather(file, &variables, flags).expect("settings");
        assert_eq!((by_flag.data.as_path(), by_flag.listen.port()), (Path::new("of-flag"), 2));
    }

    #[test]
    fn peers_are_lists_everywhere() {
        let peers = format!("peers = [\"{ID}@a:1\"]\ncluster_peers = [\"{ID}@d:1\"]");
        let both = format!("{ID}@b:1, {ID}@c:1");
        assert_eq!(gather(&peers, &[], Flags::default()).expect("settings").peers[0].host(), "a");
        let settings = gather(&peers, &[("THENCE_PEERS", &both)], Flags::default()).expect("settings");
        assert_eq!(settings.peers.iter().map(PeerAddress::host).collect::<Vec<_>>(), ["b", "c"]);
        assert_eq!(settings.cluster_peers[0].host(), "d", "one list does not replace the other");
        let settings = gather(&peers, &[("THENCE_CLUSTER_PEERS", &both)], Flags::default()).expect("settings");
        assert_eq!(settings.cluster_peers.iter().map(PeerAddress::host).collect::<Vec<_>>(), ["b", "c"]);
    }

    #[test]
    fn mistakes_are_named_where_they_were_made() {
        let error = |file: &str| gather(file, &[], Flags::default()).expect_err(file).to_string();
        assert!(error("no-such-setting = true").contains("no-such-setting"));
        for file in ["listen = ", "listen = 7", "listen = \"nowhere\"", "log_format = \"loud\"", "peers = [\"x\"]"] {
            assert!(error(file).contains("thence.toml"), "{file}");
        }
        for (name, value) in [
            ("THENCE_LISTEN", "nowhere"),
            ("THENCE_JSON", "perhaps"),
            ("THENCE_PEERS", "someone"),
            ("THENCE_CLUSTER_PEERS", "someone"),
            ("THENCE_LOG_FORMAT", "loud"),
            ("THENCE_CACHE_MIB", "-1"),
            ("THENCE_HTTP", "localhost"),
            ("THENCE_HTTP_INSECURE", "perhaps"),
            ("THENCE_CORS", "*"),
        ] {
            let error = gather("", &[(name, value)], Flags::default()).expect_err(name).to_string();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn where_to_listen_is_said_with_an_example_of_what_to_write() {
        for (text, example) in [
            ("localhost:8080", "127.0.0.1:8080 or [::1]:8080"),
            ("8080", "127.0.0.1:8080"),
            ("127.0.0.1", "127.0.0.1:7118"),
            ("", "127.0.0.1:7118"),
            ("::1", "127.0.0.1:7118"),
            ("[::1]:80a", "127.0.0.1:7118"),
        ] {
            let refused = text.parse::<ListenAddress>().expect_err(text).to_string();
            assert!(refused.contains(example), "{refused}");
        }
        let error = gather("http = \"localhost:8080\"", &[], Flags::default()).expect_err("a name").to_string();
        assert!(error.contains("127.0.0.1:8080"), "{error}");
        let error = gather("", &[("THENCE_LISTEN", "localhost:7")], Flags::default()).expect_err("a name").to_string();
        assert!(error.contains("127.0.0.1:7"), "{error}");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let flags = Flags { config: Some("/no/such/thence.toml".into()), ..Flags::default() };
        let error = Settings::gather(flags, &|_| None).expect_err("no such file").to_string();
        assert!(error.contains("/no/such/thence.toml"), "{error}");
    }
}
