//! `DB_URL`, TLS modes, passwords.

use crate::support::postgres::{Server, database, options};
use crate::window::Authority;
use assent::store::db_url::{DbUrl, SslMode};
use assent::store::postgres::Postgres;
use assent::store::{Error, Store};

fn parse(url: &str) -> Result<DbUrl, String> {
    DbUrl::parse(url, None, None).map_err(|error| error.to_string())
}

#[test]
fn urls_are_read_as_libpq_and_jdbc_write_them() {
    let hosts = |url: &str| parse(url).map(|url| url.hosts);
    let one = |host: &str, port: u16| Ok(vec![(host.to_string(), port)]);
    assert_eq!(hosts("postgres://u@db/x"), one("db", 5432));
    assert_eq!(hosts("postgresql://u:p@db:6000/x"), one("db", 6000));
    assert_eq!(hosts("jdbc:postgresql://db:6000/x?user=u&password=p"), one("db", 6000));
    assert_eq!(hosts("postgres://u@[::1]:6000/x"), one("::1", 6000));
    assert_eq!(hosts("postgres://u@[fe80::1]"), one("fe80::1", 5432));
    assert_eq!(hosts("postgres://u@%2Fvar%2Frun%2Fpostgresql/x"), one("/var/run/postgresql", 5432));
    assert_eq!(hosts("postgres:///x?host=/run/pg&port=6000&user=u"), one("/run/pg", 6000));
    let two = Ok(vec![("a".to_string(), 1), ("b".to_string(), 5432)]);
    assert_eq!(hosts("postgres://u@a:1,b/x"), two);

    let url =
        parse("postgres://us%40er:p%3Aw%2F%25@db/da%20ta?application_name=a%26b&options=-c%20x%3D1").expect("good");
    assert_eq!((url.user.as_str(), url.database.as_str()), ("us@er", "da ta"));
    assert_eq!((url.application_name.as_str(), url.options.as_deref()), ("a&b", Some("-c x=1")));
    assert_eq!(parse("postgres://u@db").expect("good").database, "u", "as libpq does");
    assert!(parse("postgres://u@a,b/x").expect("good").read_write, "with several hosts the one that takes writes");
    assert_eq!(parse("postgres://u@a/x?connect_timeout=3").expect("good").connect_timeout.as_secs(), 3);

    // From the environment, where the URL has none.
    let from = |url: &str| DbUrl::parse(url, Some("env"), Some("secret")).expect("good");
    assert_eq!(from("postgres://db/x").user, "env");
    assert_eq!(from("postgres://u@db/x").user, "u");
    assert_eq!(from("postgres://u:p@db/x"), parse("postgres://u:p@db/x").expect("good"));
    assert_eq!(from("postgres://u@db/x"), parse("postgres://u:secret@db/x").expect("good"));
    assert_eq!(parse("postgres://db/x?user=u&password=p"), parse("postgres://u:p@db/x"));

    let mode = |query: &str| parse(&format!("postgres://u@db/x?{query}")).map(|url| url.ssl_mode);
    for (query, expected) in [
        ("", SslMode::Prefer),
        ("ssl=true", SslMode::Require),
        ("ssl=false", SslMode::Disable),
        ("sslmode=disable", SslMode::Disable),
        ("sslmode=allow", SslMode::Prefer),
        ("sslmode=require", SslMode::Require),
        ("sslmode=verify-ca&sslrootcert=/ca", SslMode::VerifyCa),
        ("ssl=true&sslmode=verify-full&sslrootcert=/ca", SslMode::VerifyFull),
    ] {
        assert_eq!(mode(query), Ok(expected), "{query}");
    }
}

#[test]
fn a_bad_url_is_named_by_its_part_and_shows_no_password() {
    for (url, part) in [
        ("mysql://u:hunter2@db/x", "scheme"),
        ("hunter2", "scheme"),
        ("postgres://u:hunter2@/x", "host"),
        ("postgres://u:hunter2@db:0/x", "port"),
        ("postgres://u:hunter2@db:70000/x", "port"),
        ("postgres://u:hunter2@[nonsense]/x", "host"),
        ("postgres://:hunter2@db/x", "user"),
        ("postgres://u:hunter2@db/x?sslmode=sometimes", "sslmode"),
        ("postgres://u:hunter2@db/x?sslmode=verify-full", "sslrootcert"),
        ("postgres://u:hunter2@db/x?ssl=maybe", "ssl"),
        ("postgres://u:hunter2@db/x?ssl=false&sslmode=require", "ssl"),
        ("postgres://u:hunter2@db/x?connect_timeout=soon", "connect_timeout"),
        ("postgres://u:hunter2@db/x?fetch_size=3", "fetch_size"),
        ("postgres://u:hunter2@db/x?user=v", "user"),
        ("postgres://u:hunter2@db/x?password=hunter2", "password"),
        ("postgres://u:hunter2%@db/x", "password"),
        ("postgres://u:hunter2%ff@db/x", "password"),
        ("postgres://u@db/x?target_session_attrs=prefer-hunter2", "target_session_attrs"),
        // Not encoded: cut where the password goes on.
        ("postgres://u:hun/ter2@db/x", "port"),
        ("postgres://u:12?hunter2@db/x", "parameters"),
        ("postgres://u:hunter2#3@db:x/y", "port"),
    ] {
        let error = DbUrl::parse(url, None, Some("hunter2")).expect_err(url);
        assert_eq!(error.field, part, "{url}");
        let text = format!("{error} {error:?}");
        assert!(!text.contains("hunter2") && !text.contains("ter2"), "{text}");
    }
    let url = parse("postgres://u:hunter2@[::1]:6000,b/x?sslmode=require").expect("good");
    assert_eq!(url.to_string(), "postgres://u@[::1]:6000,b:5432/x?sslmode=require");
    assert!(!format!("{url:?} {url:#?} {:?}", options("postgres://u:hunter2@db/x")).contains("hunter2"));
}

#[test]
fn tls_is_as_strict_as_sslmode_says() {
    let folder = crate::support::folder();
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (cert, key) = ours.sign("localhost", folder.path(), "server");
    let read = |path| std::fs::read(path).expect("it was just written");
    let mut server = Server::start(&[]);
    let plain = server.database();
    server.put("server.crt", &read(cert));
    server.put("server.key", &read(key));
    server.stop_immediately();
    server.configure("ssl=on");
    server.resume();
    let ca = ours.write(&folder.path().join("ca.pem")).display().to_string();
    let other = theirs.write(&folder.path().join("other.pem")).display().to_string();
    let encrypted = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    assert_eq!(plain.value(encrypted), "f", "this test's own connection is not");

    // At `localhost`, which the certificate names, and at 127.0.0.1, which it does not.
    let try_at = |host: &str, query: &str| {
        let url = format!("postgres://postgres@{host}:{}/{}?{query}", plain.port, plain.name);
        let store = Postgres::open(options(&url))?;
        let mut writer = store.writer()?;
        writer.adopt([1; 16])?;
        let sessions =
            "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'assent'";
        let found = plain.value(sessions);
        drop(writer);
        while !plain.run(sessions).is_empty() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        Ok(found)
    };
    let (on, off) = (Ok("t".to_string()), Ok("f".to_string()));
    assert_eq!(try_at("localhost", "sslmode=disable"), off);
    assert_eq!(try_at("127.0.0.1", "sslmode=prefer"), on);
    assert_eq!(try_at("127.0.0.1", "sslmode=require"), on);
    assert_eq!(try_at("127.0.0.1", "ssl=true"), on);
    assert_eq!(try_at("127.0.0.1", &format!("sslmode=verify-ca&sslrootcert={ca}")), on);
    assert_eq!(try_at("localhost", &format!("sslmode=verify-full&sslrootcert={ca}")), on);
    let untrusted = |host: &str, query: &str| match try_at(host, query) {
        Err(Error::Stopped(text)) => assert!(text.contains("certificate is not one that"), "{text}"),
        other => panic!("{host} {query}: {other:?}"),
    };
    untrusted("127.0.0.1", &format!("sslmode=verify-full&sslrootcert={ca}"));
    for mode in ["require", "verify-ca", "verify-full"] {
        untrusted("localhost", &format!("sslmode={mode}&sslrootcert={other}"));
    }
    let unusable = try_at("localhost", "sslmode=verify-ca&sslrootcert=/nowhere.pem");
    assert!(matches!(unusable, Err(Error::Stopped(text)) if text.contains("/nowhere.pem")));

    // A server without TLS.
    let database = database();
    let require = Postgres::open(options(&database.url_as("postgres", "?sslmode=require"))).expect("good options");
    match require.writer().expect("a writer").adopt([1; 16]) {
        Err(Error::Stopped(text)) => assert!(text.contains("turn ssl on"), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_wrong_password_stops_and_is_not_shown() {
    let mut server = Server::start(&["password_encryption=scram-sha-256"]);
    let database = server.database();
    database.run("CREATE ROLE clerk LOGIN PASSWORD 'correct horse'");
    database.run("GRANT CREATE ON SCHEMA public TO clerk");
    server.put("pg_hba.conf", b"host all clerk 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n");
    server.stop_immediately();
    server.resume();
    let adopt = |password: &str| {
        let store = Postgres::open(options(&database.url_as(&format!("clerk{password}"), "")))?;
        store.writer()?.adopt([1; 16])
    };
    for password in [":battery%20staple", ""] {
        match adopt(password) {
            Err(Error::Stopped(text)) => {
                assert!(text.contains("DB_URL") && !text.contains("battery"), "{text}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(adopt(":correct%20horse"), Ok(()));
    let nobody = Postgres::open(options(&format!("postgres://postgres@127.0.0.1:{}/absent", database.port)));
    let missing = nobody.expect("good options").writer().expect("a writer").adopt([1; 16]);
    assert!(matches!(missing, Err(Error::Stopped(text)) if text.contains("create the database")));
}
