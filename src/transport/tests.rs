//! The transport over real sockets on the loopback interface: who is let in, what arrives, and how it ends.
//!
//! No test waits for time to pass: each waits for the event it is about, within [`PATIENCE`].

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::tls::hostile::{self, Shows};
use super::*;
use crate::model::{DeviceId, DeviceKey};

/// Far longer than anything here takes; a test that hangs shall fail.
const PATIENCE: Duration = Duration::from_secs(60);

fn key(n: u8) -> DeviceKey {
    DeviceKey::from_secret(&[n; 32])
}

fn config() -> TransportConfig {
    TransportConfig::new(([127, 0, 0, 1], 0).into(), [42; 64])
}

fn endpoint(n: u8) -> Endpoint {
    endpoint_with(n, config())
}

fn endpoint_with(n: u8, config: TransportConfig) -> Endpoint {
    Endpoint::bind(&key(n), config).expect("loopback has free ports")
}

fn address(endpoint: &Endpoint) -> SocketAddr {
    endpoint.local_address().expect("it is bound")
}

async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it happens within the test's patience")
}

/// What the next dialer's handshake came to.
async fn next(server: &Endpoint) -> Result<Connection, TransportError> {
    let incoming = soon(server.accept()).await.expect("not drained");
    soon(incoming.establish()).await
}

/// Both ends of a connection: the dialer's, the other's.
async fn connected(client: &Endpoint, server: &Endpoint, device: DeviceId) -> (Connection, Connection) {
    let (dialled, taken) = tokio::join!(soon(client.connect(device, address(server))), next(server));
    (dialled.expect("it answers"), taken.expect("it dials"))
}

fn frame(kind: u8, body: Vec<u8>) -> Frame {
    let critical = kind.is_multiple_of(2);
    Frame { kind, critical, body }
}

/// Sends a frame from one end to the other, on a new stream.
async fn exchange(from: &Connection, to: &Connection) {
    let sent = frame(9, b"are you there?".to_vec());
    let mut sender = soon(from.open()).await.expect("connected");
    soon(sender.send(&sent)).await.expect("connected");
    soon(sender.finish()).await.expect("connected");
    let mut receiver = soon(to.accept()).await.expect("connected");
    assert_eq!(soon(receiver.receive()).await, Ok(Some(sent)));
    assert_eq!(soon(receiver.receive()).await, Ok(None));
}

mod identity {
    use super::*;

    #[tokio::test]
    async fn each_side_sees_the_others_device() {
        let (a, b) = (endpoint(1), endpoint(2));
        let (dialled, taken) = connected(&a, &b, key(2).device()).await;
        assert_eq!(dialled.peer(), key(2).device());
        assert_eq!(taken.peer(), key(1).device());
        assert_eq!(dialled.remote_address(), address(&b));
        exchange(&dialled, &taken).await;
        exchange(&taken, &dialled).await;
        assert!(taken.traffic().received_bytes > 1200);
        assert!(dialled.traffic().sent_bytes > 1200);
        assert!(dialled.round_trip() > Duration::ZERO);
    }

    #[tokio::test]
    async fn another_device_is_named_and_learns_nothing() {
        let (a, b) = (endpoint(1), endpoint(2));
        let expected = key(3).device();
        let (dialled, taken) = tokio::join!(soon(a.connect(expected, address(&b))), next(&b));
        let found = key(2).device();
        assert!(matches!(dialled, Err(TransportError::WrongDevice { expected: e, found: f })
                if e == expected && f == found));
        // The other side's handshake ends with the dialer's alert, before any key was shown to it.
        assert!(matches!(taken, Err(TransportError::Refused { .. })), "{taken:?}");
    }

    #[tokio::test]
    async fn the_next_connection_proves_the_key_again() {
        let (a, b) = (endpoint(1), endpoint(2));
        let tls = hostile::resuming(&key(1), key(2).device());
        for _ in 0..3 {
            let (dialled, taken) = tokio::join!(soon(a.dial(tls.clone(), address(&b))), next(&b));
            let (dialled, taken) = (dialled.expect("it answers"), taken.expect("it dials"));
            assert_eq!(taken.peer(), key(1).device());
            assert_eq!(dialled.peer(), key(2).device());
            // A ticket would come after the handshake, and before this.
            exchange(&taken, &dialled).await;
        }
    }

    /// What the server says of a client, and how the client's connection ends.
    async fn refused(tls: super::super::tls::ClientTls) -> (TransportError, CloseCause) {
        let (a, b) = (endpoint(1), endpoint(2));
        let dial = async {
            match soon(a.dial(tls, address(&b))).await {
                // The client's handshake may be over before the server has judged it.
                Ok(connection) => soon(connection.closed()).await,
                Err(TransportError::Refused { alert, text }) => CloseCause::Refused { alert, text },
                Err(TransportError::Lost(cause)) => cause,
                Err(other) => panic!("{other:?}"),
            }
        };
        let (cause, taken) = tokio::join!(dial, next(&b));
        (taken.expect_err("it is hostile"), cause)
    }

    #[tokio::test]
    async fn who_shows_no_key_is_refused() {
        let other = hostile::spki(key(4).device());
        let mut longer = hostile::spki(key(1).device());
        longer.push(0);
        for shows in [
            Shows::Nothing,
            Shows::X509,
            Shows::Bytes(b"\x30\x03\x02\x01\x01".to_vec()),
            Shows::Bytes(longer),
            // Another device's key, without being able to sign with it.
            Shows::Bytes(other),
        ] {
            let tls = hostile::showing(shows.clone(), &key(1), key(2).device());
            let (error, cause) = refused(tls).await;
            assert!(matches!(error, TransportError::Unauthenticated { .. }), "{shows:?}: {error:?}");
            assert!(matches!(cause, CloseCause::Refused { .. }), "{shows:?}: {cause:?}");
        }
    }

    #[tokio::test]
    async fn who_speaks_another_protocol_is_refused() {
        for protocols in [&[][..], &[&b"h3"[..]], &[b"thence/2", b"thence/10"]] {
            let tls = hostile::speaking(protocols, &key(1), key(2).device());
            let (error, cause) = refused(tls).await;
            assert!(matches!(error, TransportError::Unauthenticated { .. }), "{error:?}");
            assert!(matches!(cause, CloseCause::Refused { alert: 120, .. }), "{cause:?}");
        }
    }
}

mod frames {
    use super::*;

    #[tokio::test]
    async fn both_sides_open_at_once_and_all_sizes_arrive() {
        let (a, b) = (endpoint(1), endpoint(2));
        let (dialled, taken) = connected(&a, &b, key(2).device()).await;
        taken.admit();
        let sizes = [0, 1, 5, 6, 7, 1000, 16_384, 16_385, 70_000, 1 << 20, 8 << 20];
        let frames: Arc<Vec<Frame>> =
            Arc::new((1..).zip(sizes).map(|(kind, size)| frame(kind, vec![kind; size])).collect());
        let mut tasks = JoinSet::new();
        for connection in [dialled, taken] {
            let (sent, expected) = (frames.clone(), frames.clone());
            let opener = connection.clone();
            tasks.spawn(async move {
                let mut sender = opener.open().await.expect("connected");
                sender.send_all(&sent).await.expect("connected");
                sender.finish_delivered().await.expect("connected");
            });
            tasks.spawn(async move {
                let mut receiver = connection.accept().await.expect("connected");
                for frame in expected.iter() {
                    let received = receiver.receive().await.expect("connected");
                    assert!(received.as_ref() == Some(frame), "{received:?}");
                }
                assert_eq!(receiver.receive().await, Ok(None));
                // The connection lives until the other end has what it waits for.
                drop(receiver);
                connection.closed().await;
            });
        }
        for _ in 0..2 {
            let ended = soon(tasks.join_next()).await.expect("four tasks");
            ended.expect("no panic");
        }
        tokio::join!(soon(a.drain(PATIENCE)), soon(b.drain(PATIENCE)));
        while let Some(ended) = soon(tasks.join_next()).await {
            ended.expect("no panic");
        }
    }

    #[tokio::test]
    async fn a_thousand_small_frames_cost_few_datagrams() {
        let (a, b) = (endpoint(1), endpoint(2));
        let (dialled, taken) = connected(&a, &b, key(2).device()).await;
        let before = dialled.traffic().sent_datagrams;
        let frames: Vec<_> = (0..1000).map(|n: u32| frame(3, n.to_le_bytes().to_vec())).collect();
        let mut sender = soon(dialled.open()).await.expect("connected");
        soon(sender.send_all(&frames)).await.expect("connected");
        let mut receiver = soon(taken.accept()).await.expect("connected");
        for frame in &frames {
            assert_eq!(soon(receiver.receive()).await.as_ref(), Ok(&Some(frame.clone())));
        }
        let datagrams = dialled.traffic().sent_datagrams - before;
        assert!(datagrams < 100, "{datagrams}");
    }

    #[tokio::test]
    async fn too_large_is_refused_at_both_ends() {
        let small = TransportConfig { frame_bytes_max: 1000, ..config() };
        let (a, b) = (endpoint(1), endpoint_with(2, small));
        let (dialled, taken) = connected(&a, &b, key(2).device()).await;
        let large = frame(4, vec![0; 1001]);
        let refusal = FrameError::TooLarge { kind: 4, bytes: 1001, bytes_max: 1000 };

        let mut sender = soon(taken.open()).await.expect("connected");
        let unsent = soon(sender.send_all(&[frame(1, vec![]), large.clone()])).await;
        assert_eq!(unsent, Err(SendError::Frame(refusal.clone())));
        // Nothing of the refused call was sent, and the stream goes on.
        soon(sender.send(&frame(2, vec![]))).await.expect("connected");
        let mut receiver = soon(dialled.accept()).await.expect("connected");
        assert_eq!(soon(receiver.receive()).await, Ok(Some(frame(2, vec![]))));

        let mut sender = soon(dialled.open()).await.expect("connected");
        soon(sender.send(&large)).await.expect("connected");
        let mut receiver = soon(taken.accept()).await.expect("connected");
        for _ in 0..2 {
            assert_eq!(soon(receiver.receive()).await, Err(ReceiveError::Frame(refusal.clone())));
        }
        receiver.stop(77);
        assert_eq!(soon(sender.stopped()).await, SendError::Stopped { code: 77 });
    }

    #[tokio::test]
    async fn a_stranger_waits_with_a_large_frame() {
        let (a, b) = (endpoint(1), endpoint(2));
        let (dialled, taken) = connected(&a, &b, key(2).device()).await;
        let mut streams = Vec::new();
        for _ in 0..8 {
            streams.push(soon(dialled.open()).await.expect("eight are allowed"));
        }
        let mut ninth = Box::pin(dialled.open());
        let sent = frame(5, vec![5; 2 << 20]);
        let expected = sent.clone();
        let mut sender = streams.swap_remove(0);
        let sending = tokio::spawn(async move { sender.send(&sent).await.map(|()| sender) });
        let mut receiver = soon(taken.accept()).await.expect("connected");
        let mut receiving = Box::pin(receiver.receive());
        tokio::select! {
            biased;
            _ = &mut ninth => panic!("a stranger may have eight streams"),
            _ = &mut receiving => panic!("a stranger's large frame waits"),
            // A whole exchange in the other direction takes longer than either would.
            () = exchange(&taken, &dialled) => {}
        }
        taken.admit();
        taken.admit();
        let received = soon(receiving).await.expect("connected");
        assert!(received == Some(expected), "{received:?}");
        soon(ninth).await.expect("admitted");
        soon(sending).await.expect("no panic").expect("connected");
    }

    #[tokio::test]
    async fn large_frames_on_many_streams_do_not_wait_for_each_other_for_ever() {
        // Sixteen frames of 200 kB, and room to assemble two.
        let tight = TransportConfig {
            streams_max: 16,
            stream_window_bytes: 64 * 1024,
            frame_bytes_max: 200_000,
            assembly_bytes_max: 400_000,
            ..config()
        };
        let (a, b) = (endpoint(1), endpoint_with(2, tight));
        let (dialled, taken) = connected(&a, &b, key(2).device()).await;
        taken.admit();
        let mut tasks = JoinSet::new();
        for _ in 0..16 {
            let mut sender = soon(dialled.open()).await.expect("sixteen are allowed");
            tasks.spawn(async move {
                sender.send(&frame(1, vec![1; 200_000])).await.expect("connected");
                sender.finish_delivered().await.expect("connected");
            });
        }
        for _ in 0..16 {
            let mut receiver = soon(taken.accept()).await.expect("connected");
            tasks.spawn(async move {
                let frame = receiver.receive().await.expect("connected").expect("a frame");
                assert_eq!(frame.body.len(), 200_000);
                assert_eq!(receiver.receive().await, Ok(None));
            });
        }
        while let Some(ended) = soon(tasks.join_next()).await {
            ended.expect("no panic");
        }
    }

    #[tokio::test]
    async fn the_end_of_a_stream_tells_what_it_was() {
        let (a, b) = (endpoint(1), endpoint(2));
        let (dialled, taken) = connected(&a, &b, key(2).device()).await;

        let mut sender = soon(dialled.open()).await.expect("connected");
        soon(sender.send(&frame(1, vec![1]))).await.expect("connected");
        sender.reset(55);
        let mut receiver = soon(taken.accept()).await.expect("connected");
        let end = loop {
            match soon(receiver.receive()).await {
                Ok(Some(_)) => continue,
                other => break other,
            }
        };
        assert_eq!(end, Err(ReceiveError::Reset { code: 55 }));
        assert_eq!(soon(receiver.receive()).await, end);

        // A cancelled call leaves half a frame behind, which must not look like the end.
        let mut sender = soon(dialled.open()).await.expect("connected");
        let large = frame(2, vec![2; 8 << 20]);
        tokio::select! {
            biased;
            _ = sender.send(&large) => panic!("it cannot be sent unread"),
            receiver = taken.accept() => drop(sender_and(receiver.expect("connected"), sender).await),
        }

        let half = soon(dialled.open()).await.expect("connected");
        soon(half.finish()).await.expect("connected");
        let mut receiver = soon(taken.accept()).await.expect("connected");
        assert_eq!(soon(receiver.receive()).await, Ok(None));
    }

    /// Drops the sender and expects the receiver to learn that the frame was given up.
    async fn sender_and(mut receiver: FrameReceiver, sender: FrameSender) -> FrameReceiver {
        drop(sender);
        for _ in 0..2 {
            assert_eq!(soon(receiver.receive()).await, Err(ReceiveError::Reset { code: 0 }));
        }
        receiver
    }

    #[tokio::test]
    async fn a_stream_that_ends_inside_a_frame_is_an_error() {
        let (a, b) = (endpoint(1), endpoint(2));
        let (dialled, taken) = connected(&a, &b, key(2).device()).await;
        for (bytes, missing_bytes) in [(&[1_u8][..], 5), (&[1, 0, 4, 0, 0, 0, 9], 3)] {
            let mut stream = soon(dialled.open_bytes()).await;
            assert_eq!(soon(stream.write(bytes)).await, Ok(bytes.len()));
            stream.finish().expect("it is open");
            let mut receiver = soon(taken.accept()).await.expect("connected");
            for _ in 0..2 {
                assert_eq!(
                    soon(receiver.receive()).await,
                    Err(ReceiveError::Frame(FrameError::Truncated { missing_bytes }))
                );
            }
        }
        // The largest claim there is, and then nothing.
        let mut stream = soon(dialled.open_bytes()).await;
        let claim = [1, 0, 255, 255, 255, 255, 1, 2, 3];
        assert_eq!(soon(stream.write(&claim)).await, Ok(claim.len()));
        let mut receiver = soon(taken.accept()).await.expect("connected");
        assert!(matches!(soon(receiver.receive()).await, Err(ReceiveError::Frame(FrameError::TooLarge { .. }))));
    }
}

mod ends {
    use super::*;

    #[tokio::test]
    async fn a_close_is_told_with_its_reason() {
        let (a, b) = (endpoint(1), endpoint(2));
        let (dialled, taken) = connected(&a, &b, key(2).device()).await;
        let mut sender = soon(taken.open()).await.expect("connected");
        let reason = CloseReason::new(CloseReason::FIRST_OF_SESSIONS, "no such space");
        dialled.close(reason.clone());
        let cause = CloseCause::ByPeer(reason);
        assert_eq!(soon(taken.closed()).await, cause);
        assert_eq!(taken.close_cause(), Some(cause.clone()));
        assert_eq!(soon(dialled.closed()).await, CloseCause::Local);
        assert_eq!(soon(sender.send(&frame(1, vec![]))).await, Err(SendError::Lost(cause.clone())));
        assert_eq!(soon(taken.accept()).await.map(|_| ()), Err(ReceiveError::Lost(cause)));
    }

    #[tokio::test]
    async fn a_dropped_connection_is_told() {
        let (a, b) = (endpoint(1), endpoint(2));
        let (dialled, taken) = connected(&a, &b, key(2).device()).await;
        drop(dialled);
        assert_eq!(soon(taken.closed()).await, CloseCause::ByPeer(CloseReason::new(CloseReason::DROPPED, "")));
    }

    #[tokio::test]
    async fn draining_says_goodbye_and_takes_nobody() {
        let (a, b) = (endpoint(1), endpoint(2));
        let (dialled, _taken) = connected(&a, &b, key(2).device()).await;
        assert!(soon(b.drain(PATIENCE)).await);
        let cause = soon(dialled.closed()).await;
        assert!(matches!(&cause, CloseCause::ByPeer(reason) if reason.code() == CloseReason::GOING_AWAY), "{cause:?}");
        assert!(soon(b.accept()).await.is_none());
        let again = soon(a.connect(key(2).device(), address(&b))).await;
        assert!(matches!(again, Err(TransportError::Busy)), "{again:?}");
        let from_drained = soon(b.connect(key(1).device(), address(&a))).await;
        assert!(matches!(from_drained, Err(TransportError::Stopped)));
    }

    #[tokio::test]
    async fn a_drain_ends_at_its_deadline() {
        let (a, b) = (endpoint(1), endpoint(2));
        let _connection = connected(&a, &b, key(2).device()).await;
        assert!(!soon(b.drain(Duration::ZERO)).await);
    }

    #[tokio::test]
    async fn nobody_there_is_a_timeout() {
        let deaf = UdpSocket::bind("127.0.0.1:0").await.expect("loopback");
        let impatient = TransportConfig { handshake_ms_max: 50, ..config() };
        let a = endpoint_with(1, impatient);
        let nobody = deaf.local_addr().expect("it is bound");
        let error = soon(a.connect(key(2).device(), nobody)).await;
        assert!(matches!(error, Err(TransportError::HandshakeTimeout { ms: 50 })), "{error:?}");
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let error = soon(a.connect(key(2).device(), nowhere)).await;
        assert!(matches!(error, Err(TransportError::Address { .. })));
    }

    #[tokio::test]
    async fn a_restarted_server_is_noticed_at_once() {
        let (a, before, after) = (endpoint(1), endpoint(2), endpoint(2));
        let way = Way::to(address(&before)).await;
        let (dialled, taken) = tokio::join!(soon(a.connect(key(2).device(), way.address)), next(&before));
        let (dialled, taken) = (dialled.expect("it answers"), taken.expect("it dials"));
        exchange(&dialled, &taken).await;

        // To the client this is a server that lost all but its keys: another endpoint gets its packets now.
        way.server.send_replace(address(&after));
        let begin = Instant::now();
        let mut sender = soon(dialled.open()).await.expect("it does not know yet");
        soon(sender.send(&frame(1, vec![1]))).await.expect("it does not know yet");
        assert_eq!(soon(dialled.closed()).await, CloseCause::Reset);
        let idle = Duration::from_millis(config().idle_ms_max.into());
        assert!(begin.elapsed() < idle / 3, "{:?}", begin.elapsed());
    }

    #[tokio::test]
    async fn a_server_with_another_reset_key_cannot_end_a_connection() {
        let other_key = TransportConfig { stateless_reset_key: [43; 64], ..config() };
        let (a, before, other) = (endpoint(1), endpoint(2), endpoint_with(2, other_key));
        let mut way = Way::to(address(&before)).await;
        let (dialled, taken) = tokio::join!(soon(a.connect(key(2).device(), way.address)), next(&before));
        let (dialled, taken) = (dialled.expect("it answers"), taken.expect("it dials"));
        exchange(&dialled, &taken).await;

        way.server.send_replace(address(&other));
        while way.answered.try_recv().is_ok() {}
        let mut sender = soon(dialled.open()).await.expect("connected");
        soon(sender.send(&frame(1, vec![1]))).await.expect("connected");
        // The stranger's reset has come, and counts for nothing.
        while soon(way.answered.recv()).await != Some(address(&other)) {}
        way.server.send_replace(address(&before));
        let mut receiver = soon(taken.accept()).await.expect("connected");
        assert_eq!(soon(receiver.receive()).await, Ok(Some(frame(1, vec![1]))));
        assert_eq!(dialled.close_cause(), None);
    }

    #[tokio::test]
    async fn a_silent_peer_is_an_idle_timeout() {
        let hasty = TransportConfig { idle_ms_max: 300, keep_alive_ms: 100, ..config() };
        let (a, b) = (endpoint_with(1, hasty), endpoint(2));
        let way = Way::to(address(&b)).await;
        let (dialled, taken) = tokio::join!(soon(a.connect(key(2).device(), way.address)), next(&b));
        let (dialled, taken) = (dialled.expect("it answers"), taken.expect("it dials"));
        exchange(&dialled, &taken).await;
        // From here on packets go where nobody answers.
        let deaf = UdpSocket::bind("127.0.0.1:0").await.expect("loopback");
        way.server.send_replace(deaf.local_addr().expect("it is bound"));
        assert_eq!(soon(dialled.closed()).await, CloseCause::IdleTimeout);
    }
}

mod moves {
    use super::*;

    #[tokio::test]
    async fn a_clients_nat_may_change_its_port() {
        let (a, b) = (endpoint(1), endpoint(2));
        let way = Way::to(address(&b)).await;
        let (dialled, taken) = tokio::join!(soon(a.connect(key(2).device(), way.address)), next(&b));
        let (dialled, taken) = (dialled.expect("it answers"), taken.expect("it dials"));
        exchange(&dialled, &taken).await;
        let before = taken.remote_address();
        for _ in 0..3 {
            way.new_port.send(()).await.expect("it forwards");
            exchange(&dialled, &taken).await;
            exchange(&taken, &dialled).await;
        }
        assert_ne!(taken.remote_address(), before);
    }

    #[tokio::test]
    async fn a_dialer_may_move_to_another_socket() {
        let (a, b) = (endpoint(1), endpoint(2));
        let (dialled, taken) = connected(&a, &b, key(2).device()).await;
        exchange(&dialled, &taken).await;
        let before = address(&a);
        a.rebind(([127, 0, 0, 1], 0).into()).expect("a free port");
        assert_ne!(address(&a), before);
        exchange(&dialled, &taken).await;
        exchange(&taken, &dialled).await;
        assert_eq!(taken.remote_address(), address(&a));

        let taken_port = a.rebind(address(&b));
        assert!(matches!(taken_port, Err(TransportError::Socket { .. })));
        exchange(&dialled, &taken).await;
    }
}

mod limits {
    use super::*;

    #[tokio::test]
    async fn many_unfinished_handshakes_cost_a_proof_of_address() {
        let wary = TransportConfig { handshakes_unproven_max: 0, ..config() };
        let (a, b) = (endpoint(1), endpoint_with(2, wary));
        let (dialled, taken) = connected(&a, &b, key(2).device()).await;
        exchange(&dialled, &taken).await;
    }

    #[tokio::test]
    async fn a_slow_dialer_blocks_nobody_and_its_place_comes_back() {
        let narrow = TransportConfig { handshakes_max: 2, ..config() };
        let (a, b) = (endpoint(1), endpoint_with(2, narrow));
        let dial = |endpoint: &Endpoint| {
            let (endpoint, place) = (endpoint.clone(), address(&b));
            tokio::spawn(async move { endpoint.connect(key(2).device(), place).await })
        };
        // Two are taken in and not dealt with: the third is refused, without anybody waiting for them.
        let first = dial(&a);
        let held = soon(b.accept()).await.expect("not drained");
        let second = dial(&a);
        let held_too = soon(b.accept()).await.expect("not drained");
        let third = dial(&a);
        let refused = tokio::select! {
            _ = b.accept() => panic!("there are two places"),
            ended = third => ended.expect("no panic"),
        };
        assert!(matches!(refused, Err(TransportError::Busy)), "{refused:?}");
        // Dropping one refuses it and frees its place.
        drop(held_too);
        let refused = soon(second).await.expect("no panic");
        assert!(matches!(refused, Err(TransportError::Busy)), "{refused:?}");
        let _connection = connected(&a, &b, key(2).device()).await;
        soon(held.establish()).await.expect("it waited");
        soon(first).await.expect("no panic").expect("it answers");
    }

    #[tokio::test]
    async fn there_are_so_many_connections_at_most() {
        let narrow = TransportConfig { connections_max: 1, ..config() };
        let (a, b) = (endpoint(1), endpoint_with(2, narrow));
        let _connection = connected(&a, &b, key(2).device()).await;
        tokio::select! {
            _ = b.accept() => panic!("there is one place"),
            refused = a.connect(key(2).device(), address(&b)) => {
                assert!(matches!(refused, Err(TransportError::Busy)), "{refused:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_configuration_that_contradicts_itself_is_refused() {
        let change: [fn(&mut TransportConfig); 6] = [
            |config| config.keep_alive_ms = config.idle_ms_max,
            |config| config.streams_max = 0,
            |config| config.stream_window_bytes = u32::MAX,
            |config| config.assembly_bytes_max = config.frame_bytes_max - 1,
            |config| config.handshakes_max = 0,
            |config| config.frame_bytes_max = 0,
        ];
        for change in change {
            let mut config = config();
            change(&mut config);
            let error = Endpoint::bind(&key(1), config).expect_err("it cannot work");
            assert!(matches!(error, TransportError::Config { .. }), "{error}");
        }
        assert!(!format!("{:?}", config()).contains("42"));
    }
}

/// A way between one client and one server that can change at either end: the client's NAT takes another port, or
/// another server gets the packets.
struct Way {
    /// Where the client dials.
    address: SocketAddr,
    /// Who gets its packets.
    server: watch::Sender<SocketAddr>,
    /// Makes the server see another source port from the next packet on.
    new_port: mpsc::Sender<()>,
    /// Whose packets were passed back to the client.
    answered: mpsc::UnboundedReceiver<SocketAddr>,
}

impl Way {
    async fn to(server: SocketAddr) -> Self {
        let bind = || async { UdpSocket::bind("127.0.0.1:0").await.expect("loopback") };
        let (inside, mut outside) = (bind().await, bind().await);
        let address = inside.local_addr().expect("it is bound");
        let (server, servers) = watch::channel(server);
        let (new_port, mut new_ports) = mpsc::channel(1);
        let (answers, answered) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
            let mut client = None;
            loop {
                tokio::select! {
                    biased;
                    wanted = new_ports.recv() => match wanted {
                        Some(()) => outside = bind().await,
                        None => return,
                    },
                    Ok((bytes, from)) = inside.recv_from(&mut up) => {
                        client = Some(from);
                        let to = *servers.borrow();
                        outside.send_to(&up[..bytes], to).await.expect("loopback");
                    }
                    Ok((bytes, from)) = outside.recv_from(&mut down) => {
                        // Answers of a server that is no longer there are lost with it.
                        if from == *servers.borrow()
                            && let Some(client) = client
                        {
                            inside.send_to(&down[..bytes], client).await.expect("loopback");
                            let _ = answers.send(from);
                        }
                    }
                }
            }
        });
        Self { address, server, new_port, answered }
    }
}
