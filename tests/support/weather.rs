//! A TCP proxy that makes the network misbehave: delays, cuts, and replies that never arrive.
#![allow(dead_code)] // each test binary uses a part of it

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

/// What becomes of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// They pass.
    Fair,
    /// Each piece of an answer is held up for so long.
    Slow(Duration),
    /// One of so many answers is swallowed, and its connection cut: whoever waits for it cannot know.
    Swallow(u64),
    /// Nothing passes, and nobody is told.
    Dark,
    /// Connections are refused, and those that stood are cut.
    Down,
}

/// The proxy; dropped, it lets go of all connections.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    to: SocketAddr,
    weather: Mutex<Weather>,
    open: Mutex<Vec<TcpStream>>,
    over: AtomicBool,
    swallowed: AtomicU64,
    passed: AtomicU64,
}

impl Proxy {
    /// A proxy in front of `to`, on a free port.
    pub fn new(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            to,
            weather: Mutex::new(Weather::Fair),
            open: Mutex::default(),
            over: AtomicBool::new(false),
            swallowed: AtomicU64::new(0),
            passed: AtomicU64::new(0),
        });
        let there = shared.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if there.over.load(Ordering::Acquire) {
                    return;
                }
                there.take(client);
            }
        });
        Self { address, shared }
    }

    /// A proxy in front of the Postgres of this URL, and the URL by it.
    pub fn before(url: &str) -> (Self, String) {
        let (_, rest) = url.split_once('@').unwrap();
        let (address, name) = rest.split_once('/').unwrap();
        let proxy = Self::new(address.parse().unwrap());
        let url = format!("postgres://postgres@{}/{name}", proxy.address());
        (proxy, url)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the weather, for connections that stand too.
    pub fn set(&self, weather: Weather) {
        *self.shared.weather.lock().unwrap_or_else(PoisonError::into_inner) = weather;
        if weather == Weather::Down {
            self.shared.cut_all();
        }
    }

    /// How many pieces of answers have passed.
    pub fn passed(&self) -> u64 {
        self.shared.passed.load(Ordering::Acquire)
    }

    /// How many answers have been swallowed.
    pub fn swallowed(&self) -> u64 {
        self.shared.swallowed.load(Ordering::Acquire)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Release);
        self.shared.cut_all();
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn weather(&self) -> Weather {
        *self.weather.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cut_all(&self) {
        for stream in self.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn take(self: &Arc<Self>, client: TcpStream) {
        if self.weather() == Weather::Down {
            let _ = client.shutdown(Shutdown::Both);
            return;
        }
        let Ok(server) = TcpStream::connect(self.to) else { return };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.extend([&client, &server].into_iter().filter_map(|s| s.try_clone().ok()));
        drop(open);
        for (from, to, answers) in [(&client, &server, false), (&server, &client, true)] {
            let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { return };
            let me = self.clone();
            thread::spawn(move || me.carry(from, to, answers));
        }
    }

    fn carry(&self, mut from: TcpStream, mut to: TcpStream, answers: bool) {
        let mut piece = vec![0; 64 << 10];
        while let Ok(n @ 1..) = from.read(&mut piece) {
            let weather = self.weather();
            match weather {
                Weather::Slow(pause) if answers => thread::sleep(pause),
                // at random: one who tries again in the same way would else lose the same again
                Weather::Swallow(each) if answers && fastrand::u64(..each) == 0 => {
                    self.swallowed.fetch_add(1, Ordering::AcqRel);
                    break;
                }
                Weather::Dark => continue,
                Weather::Down => break,
                _ => {}
            }
            if to.write_all(&piece[..n]).is_err() {
                break;
            }
            self.passed.fetch_add(u64::from(answers), Ordering::AcqRel);
        }
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }
}
