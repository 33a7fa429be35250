//! Which cache a URL means, and how its server is reached: passwords, users, TLS, prefix.

use std::{path::Path, time::Duration};

use greenroom::cache::{self, CacheError, CacheOptions, Shelf};

use crate::support::{Redis, World, document, options};

#[tokio::test]
async fn a_url_that_no_cache_understands_is_an_error_that_says_so() {
    let error = |url: &str| cache::open(url, &options()).err().unwrap_or_else(|| panic!("{url}"));
    assert_eq!(error("memcached://h"), CacheError::Scheme("memcached://".to_owned()));
    assert_eq!(
        error("memcached://h").to_string(),
        "`memcached://` is not a cache: use memory://, redis:// or rediss://"
    );
    assert!(matches!(error("localhost:6379"), CacheError::Scheme(_)));
    assert!(matches!(error("redis://"), CacheError::Url(_)));
    assert!(matches!(error("redis://h/name"), CacheError::Url(_)));
    assert!(matches!(error("rediss://h/#insecure"), CacheError::Url(_)));
    let unquoted = error("redis://me:hunt/er2@h:6379/x");
    assert!(!unquoted.to_string().contains("er2"), "{unquoted}");
    let options = CacheOptions { tls_ca: Some("no/such/file.pem".into()), ..options() };
    let missing = cache::open("rediss://h", &options).err().unwrap();
    assert!(missing.to_string().contains("no/such/file.pem"), "{missing}");
}

#[test]
fn a_server_needs_a_runtime_to_be_reached_from() {
    assert_eq!(cache::open("redis://127.0.0.1:1", &options()).err(), Some(CacheError::NoRuntime));
    assert!(cache::open("memory://", &options()).is_ok());
}

/// A server on which `me` may do what these rules say.
fn server_for(rules: &[&str]) -> Redis {
    let server = Redis::start();
    let mut command = vec!["ACL", "SETUSER", "me", "on", ">hunter/2"];
    command.extend_from_slice(rules);
    assert_eq!(server.say(&command), "+OK\r\n");
    server
}

async fn open_as(server: &Redis, user: &str, options: CacheOptions) -> World {
    let url = format!("redis://{user}@127.0.0.1:{}/3", server.port);
    World { cache: cache::open(&url, &options).unwrap(), server: None }
}

const ENOUGH: [&str; 8] =
    ["~mine:*", "&mine:*", "+@read", "+@write", "+@scripting", "+@pubsub", "+@connection", "+time"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_its_own_prefix_is_enough() {
    for run in [&["+info"][..], &[]] {
        let server = server_for(&[&ENOUGH[..], run].concat());
        let options = CacheOptions { prefix: "mine:".to_owned(), near: false, ..options() };
        let world = open_as(&server, "me:hunter%2F2", options.clone()).await;
        world.up(true).await;
        world.cache.put(Shelf::Sessions, "a", document(1, "x")).await;
        assert_eq!(world.cache.get(Shelf::Sessions, "a").await, Some(document(1, "x")));
        world.fill("c", 1, 3).await;
        world.append("c", 4).await;
        assert_eq!(world.seqs("c", 1).await, Some(vec![4]));
        let second = open_as(&server, "me:hunter%2F2", options).await;
        second.up(true).await;
        // Who may not ask which run of the server this is does not trust what lies there.
        assert_eq!(second.cache.get(Shelf::Sessions, "a").await.is_some(), !run.is_empty());
        let all = server.say(&["ACL", "LOG"]);
        assert!(!all.contains("evalsha") && !all.contains("publish"), "{all}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_may_not_write_finds_the_cache_down_and_why() {
    let server = server_for(&["~*", "&*", "+@all", "-@write"]);
    let world = open_as(&server, "me:hunter%2F2", options()).await;
    let reason = refused(&world).await;
    assert!(reason.contains("takes nothing") && reason.contains("can't run this command"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_told_without_the_password() {
    let server = server_for(&ENOUGH);
    let world = open_as(&server, "me:sesame", options()).await;
    let reason = refused(&world).await;
    assert!(!reason.contains("sesame"), "{reason}");
    assert!(!format!("{:?}", world.cache.health()).contains("sesame"));
}

/// Why it is down.
async fn refused(world: &World) -> String {
    loop {
        let health = world.cache.health();
        assert!(!health.up);
        if let Some(reason) = health.reason {
            return reason;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn tls_file(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/tls").join(name).display().to_string()
}

fn tls_server() -> Redis {
    let (cert, key, ca) = (tls_file("server.pem"), tls_file("server.key"), tls_file("ca.pem"));
    Redis::start_with(&[
        "--tls-port",
        "{port}",
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &ca,
        "--tls-auth-clients",
        "no",
    ])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_with_a_ca_of_ones_own() {
    let options = CacheOptions { tls_ca: Some(tls_file("ca.pem").into()), near: false, ..options() };
    let world = World::over(tls_server(), options).await;
    world.cache.put(Shelf::Sessions, "a", document(1, "x")).await;
    assert_eq!(world.cache.get(Shelf::Sessions, "a").await, Some(document(1, "x")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_nobody_vouches_for_is_refused() {
    let server = tls_server();
    let world = World { cache: cache::open(&server.url(), &options()).unwrap(), server: Some(server) };
    let reason = refused(&world).await;
    assert!(reason.contains("certificate"), "{reason}");
    assert_eq!(world.cache.get(Shelf::Sessions, "a").await, None);
}
