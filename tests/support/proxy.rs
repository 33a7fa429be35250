//! A network between a client and a server that can hold back what is on its way.
#![allow(dead_code)] // each test binary uses a part of it

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::Arc,
    thread,
};

use parking_lot::{Condvar, Mutex};

/// A proxy; it ends with the test's process.
pub struct Proxy {
    /// Where it listens.
    pub port: u16,
    held: Arc<Held>,
}

#[derive(Default)]
struct Held {
    /// Connections made so far, and how many of the first of them are held back.
    state: Mutex<(usize, usize)>,
    changed: Condvar,
}

impl Proxy {
    /// A proxy before the server on this port.
    pub fn before(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let held = Arc::<Held>::default();
        let shared = held.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else { continue };
                let number = {
                    let mut state = shared.state.lock();
                    state.0 += 1;
                    state.0
                };
                let (mut from_server, mut to_client) =
                    (server.try_clone().unwrap(), client.try_clone().unwrap());
                thread::spawn(move || {
                    let _ = std::io::copy(&mut from_server, &mut to_client);
                    let _ = to_client.shutdown(Shutdown::Both);
                });
                let held = shared.clone();
                thread::spawn(move || held.forward(number, client, server));
            }
        });
        Self { port, held }
    }

    /// What clients of the connections there are send from now on does not arrive, …
    pub fn hold(&self) {
        let mut state = self.held.state.lock();
        state.1 = state.0;
    }

    /// … until now; also where the client has hung up meanwhile.
    pub fn release(&self) {
        self.held.state.lock().1 = 0;
        self.held.changed.notify_all();
    }
}

impl Held {
    fn forward(&self, number: usize, mut client: TcpStream, mut server: TcpStream) {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let read = client.read(&mut buffer).unwrap_or(0);
            let mut state = self.state.lock();
            while number <= state.1 {
                self.changed.wait(&mut state);
            }
            drop(state);
            if read == 0 || server.write_all(&buffer[..read]).is_err() {
                let _ = server.shutdown(Shutdown::Write);
                return;
            }
        }
    }
}
