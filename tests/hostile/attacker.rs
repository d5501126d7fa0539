//! A peer that speaks QUIC as a device does, and then whatever a test wants.

use std::time::Duration;

use thence::causal::{Claims, Knowledge, ReplicaId};
use thence::codec;
use thence::model::{DeviceKey, SpaceId};
use thence::replica::{Channel, Hello, Message, Open, PROTOCOL_VERSION};
use thence::transport::{
    CloseCause, Connection, Endpoint, Frame, FrameReceiver, FrameSender, PeerAddress, TransportConfig,
};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use super::house::{Device, PATIENCE, RunningNode};

/// The type of the frame that says which channel a stream is about.
const STREAM_HEAD: u8 = 0;

/// A device that keeps no rules.
pub struct Attacker {
    pub key: DeviceKey,
    runtime: Runtime,
    endpoint: Endpoint,
    victim: PeerAddress,
}

impl Attacker {
    /// One that nobody knows.
    pub fn stranger(number: u8, victim: &RunningNode) -> Self {
        Self::with_key(DeviceKey::from_secret(&[number; 32]), victim)
    }

    /// One that uses a device's key.
    pub fn as_device(device: &Device, victim: &RunningNode) -> Self {
        let text = std::fs::read_to_string(device.data().join("device.key")).expect("a device has a key");
        let secret: Vec<u8> = (0..32)
            .map(|at| u8::from_str_radix(&text.trim()[2 * at..2 * at + 2], 16).expect("it is written in hexadecimal"))
            .collect();
        Self::with_key(DeviceKey::from_secret(&secret.try_into().expect("32 bytes")), victim)
    }

    fn with_key(key: DeviceKey, victim: &RunningNode) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("threads can be started");
        let mut config = TransportConfig::new(([127, 0, 0, 1], 0).into(), [7; 64]);
        // Itself it takes anything, and sends what others do not take.
        (config.frame_bytes_max, config.assembly_bytes_max) = (64 << 20, 64 << 20);
        let endpoint = {
            let _inside = runtime.enter();
            Endpoint::bind(&key, config).expect("loopback has free ports")
        };
        Self { key, runtime, endpoint, victim: victim.peer().parse().expect("a node tells where it is") }
    }

    /// Does something that takes a while, but no longer than the test is patient.
    #[track_caller]
    pub fn run<T>(&self, work: impl Future<Output = T>) -> T {
        let within = |work| async { tokio::time::timeout(PATIENCE, work).await };
        self.runtime.block_on(within(work)).expect("it happens within the test's patience")
    }

    /// Where its tasks run.
    pub fn handle(&self) -> &tokio::runtime::Handle {
        self.runtime.handle()
    }

    /// A connection on which nothing was said.
    pub async fn connect(&self) -> Connection {
        let address = self.victim.resolve().await.expect("an address needs no looking up")[0];
        self.endpoint.connect(self.victim.device(), address).await.expect("the node answers")
    }

    /// A connection on which hello was said.
    #[track_caller]
    pub fn greet(&self) -> Greeted {
        self.run(async {
            let connection = self.connect().await;
            let mut control = stream(&connection, Channel::Control).await;
            let hello = Hello {
                version: PROTOCOL_VERSION,
                agent: "mallory".to_owned(),
                replica: ReplicaId::from_bytes([7; 16]),
                process: 7,
            };
            control.send(&frame(&Message::Hello(hello))).await.expect("connected");
            control.send(&frame(&Message::Offered(0))).await.expect("connected");
            Greeted { connection, control, hearing: None }
        })
    }
}

/// A connection on which hello was said.
pub struct Greeted {
    pub connection: Connection,
    pub control: FrameSender,
    hearing: Option<mpsc::UnboundedReceiver<(Channel, Message)>>,
}

impl Greeted {
    /// What the node says, until it closes or a message of interest comes. Before the first call nothing is read.
    pub async fn hear<T>(&mut self, mut interest: impl FnMut(Channel, Message) -> Option<T>) -> Result<T, CloseCause> {
        let connection = self.connection.clone();
        let hearing = self.hearing.get_or_insert_with(|| {
            let (heard, hearing) = mpsc::unbounded_channel();
            tokio::spawn(async move {
                while let Ok(stream) = connection.accept().await {
                    tokio::spawn(listen(stream, heard.clone()));
                }
            });
            hearing
        });
        while let Some((channel, message)) = hearing.recv().await {
            if let Some(found) = interest(channel, message) {
                return Ok(found);
            }
        }
        Err(self.connection.closed().await)
    }

    /// What the node said when it ended the connection.
    pub async fn farewell(&self) -> String {
        match self.connection.closed().await {
            CloseCause::ByPeer(reason) => reason.text().to_owned(),
            other => panic!("the node closes with a reason, not {other}"),
        }
    }
}

async fn listen(mut stream: FrameReceiver, heard: mpsc::UnboundedSender<(Channel, Message)>) {
    let mut about = Channel::Control;
    while let Ok(Some(frame)) = stream.receive().await {
        if frame.kind == STREAM_HEAD {
            let space = <[u8; 16]>::try_from(frame.body.as_slice());
            about = space.map_or(Channel::Control, |space| Channel::Space(SpaceId::from_bytes(space)));
            continue;
        }
        let message = Message::decode(frame.kind, frame.critical, &frame.body).expect("the node keeps the rules");
        if heard.send((about, message.expect("nothing is skipped"))).is_err() {
            return;
        }
    }
}

/// A stream about a channel.
pub async fn stream(connection: &Connection, channel: Channel) -> FrameSender {
    let body = match channel {
        Channel::Control => Vec::new(),
        Channel::Space(space) => space.as_bytes().to_vec(),
    };
    let mut stream = connection.open().await.expect("connected");
    stream.send(&Frame { kind: STREAM_HEAD, critical: true, body }).await.expect("connected");
    stream
}

/// A message as a frame.
pub fn frame(message: &Message) -> Frame {
    Frame { kind: message.kind(), critical: true, body: message.body() }
}

/// The opening of a space of which nothing is known.
pub fn open_with_nothing() -> Message {
    let knowledge = Some(Knowledge::full(Claims::default()));
    Message::Open(Open { revision: thence::model::Revision::first(), digest: [0; 16], knowledge, answer: true })
}

/// A vector as it travels, of so many replicas that nobody ever met.
pub fn long_vector(replicas: u32) -> Vec<u8> {
    let mut replica = [0; 16];
    let dots = (0..replicas).map(|number| {
        replica[..4].copy_from_slice(&number.to_be_bytes());
        (replica, 1_u8, [0_u8; 16])
    });
    codec::encode(&dots.collect::<Vec<_>>())
}

/// Long enough for a node to have answered if it was going to. Used only where the answer is to *not* come.
pub const MOMENT: Duration = Duration::from_millis(100);
