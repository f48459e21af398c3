//! TLS 1.3 on the gRPC port: the right client certificate is let in, a wrong one and none are not.

use crate::support::calls::*;
use crate::support::{Node, folder};
use crate::window::Authority;
use std::error::Error;
use std::path::{Path, PathBuf};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};

type Files = (PathBuf, PathBuf);

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).expect("it was just written")
}

async fn connect(node: &Node, ca: &Path, client: Option<&Files>) -> Result<Channel, Box<dyn Error>> {
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(ca))).domain_name("localhost");
    if let Some((cert, key)) = client {
        tls = tls.identity(Identity::from_pem(read(cert), read(key)));
    }
    let endpoint = Channel::from_shared(format!("https://{}", node.grpc()))?.tls_config(tls)?;
    Ok(soon("a handshake", endpoint.connect()).await?)
}

/// Opens an approval over TLS: under TLS 1.3 a refused client learns it with its first call at the latest.
async fn call(node: &Node, ca: &Path, client: Option<&Files>) -> Result<(), Box<dyn Error>> {
    let mut client = Client::new(connect(node, ca, client).await?);
    soon("an answer", client.submit_approval_request(request("", 1, 1))).await?;
    Ok(())
}

#[tokio::test]
async fn grpc_takes_the_right_client_and_no_other() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (ca, other_ca) = (ours.write(&path("ca.pem")), theirs.write(&path("other-ca.pem")));
    let (cert, key) = ours.sign("localhost", folder.path(), "server");
    let alice = ours.sign("alice", folder.path(), "alice");
    let stranger = theirs.sign("alice", folder.path(), "stranger");
    let flag = |path: &Path| path.to_str().expect("UTF-8").to_string();
    let (cert, key, client_ca) = (flag(&cert), flag(&key), flag(&ca));

    let open = Node::start(&["--tls-cert", &cert, "--tls-key", &key]);
    call(&open, &ca, None).await.expect("no client certificate is asked for");
    call(&open, &other_ca, None).await.expect_err("a client does not trust another authority's server");
    let plain = tonic::transport::Endpoint::from_shared(open.endpoint()).expect("an address").connect_lazy();
    let plain = soon("an end", async { Client::new(plain).submit_approval_request(request("", 1, 1)).await });
    plain.await.expect_err("plain text gets nothing");

    let mutual = Node::start(&["--tls-cert", &cert, "--tls-key", &key, "--tls-client-ca", &client_ca]);
    call(&mutual, &ca, Some(&alice)).await.expect("the right certificate");
    call(&mutual, &ca, None).await.expect_err("no certificate");
    call(&mutual, &ca, Some(&stranger)).await.expect_err("another authority's certificate");

    // Streams too, and the node is well after all that.
    let mut client = Client::new(connect(&mutual, &ca, Some(&alice)).await.expect("the right certificate"));
    crate::support::calls::open(&mut client, request(&id(1), 1, 1)).await;
    let mut changes = client.watch_approval_updates(watch_of(&id(1))).await.expect("a stream").into_inner();
    assert_eq!(next(&mut changes).await.approval_id, id(1));
    cast(&mut client, &id(1), "alice", Decision::Approved).await;
    assert_eq!(next(&mut changes).await.status(), Approved);
}
