//! An HTTPS server on BoringSSL whose private key is elsewhere. See the README beside it.
//!
//! BoringSSL hands its private-key method the message to sign and lets the handshake wait for the
//! answer without a thread: one task a connection, all on one thread.
#![forbid(unsafe_code)]

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use boring::ssl::{
    AsyncPrivateKeyMethod, AsyncPrivateKeyMethodError, BoxPrivateKeyMethodFinish,
    BoxPrivateKeyMethodFuture, SslAcceptor, SslMethod, SslRef, SslSignatureAlgorithm,
};
use boring::x509::X509;
use keyserver_client::{KeyId, Operation, Pool, PoolBuilder, SignatureScheme, TlsIdentity};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Signs handshakes with a key on a key server.
struct RemoteKey {
    pool: Pool,
    key: KeyId,
}

impl AsyncPrivateKeyMethod for RemoteKey {
    fn sign(
        &self,
        ssl: &mut SslRef,
        input: &[u8],
        algorithm: SslSignatureAlgorithm,
        _: &mut [u8],
    ) -> Result<BoxPrivateKeyMethodFuture, AsyncPrivateKeyMethodError> {
        let number = number_of(algorithm).ok_or(AsyncPrivateKeyMethodError)?;
        let scheme = SignatureScheme::from_u16(number).ok_or(AsyncPrivateKeyMethodError)?;
        // The key server reads the message and signs nothing but a handshake.
        let operation = if ssl.version_str() == "TLSv1.3" {
            Operation::sign_tls13(&self.key, scheme, input)
        } else {
            Operation::sign_tls12(&self.key, scheme, input)
        };
        let pool = self.pool.clone();
        Ok(Box::pin(async move {
            let signature = pool.call(&operation).await.map_err(|error| {
                eprintln!("a signature failed: {error}");
                AsyncPrivateKeyMethodError
            })?;
            let finish: BoxPrivateKeyMethodFinish = Box::new(move |_, output| {
                let room = output.get_mut(..signature.len());
                room.ok_or(AsyncPrivateKeyMethodError)?
                    .copy_from_slice(&signature);
                Ok(signature.len())
            });
            Ok(finish)
        }))
    }

    /// RSA key exchange is not offered: it needs a right that can be turned against the key.
    fn decrypt(
        &self,
        _: &mut SslRef,
        _: &[u8],
        _: &mut [u8],
    ) -> Result<BoxPrivateKeyMethodFuture, AsyncPrivateKeyMethodError> {
        Err(AsyncPrivateKeyMethodError)
    }
}

/// The number that TLS has for an algorithm (RFC 8446, section 4.2.3).
fn number_of(algorithm: SslSignatureAlgorithm) -> Option<u16> {
    Some(match algorithm {
        SslSignatureAlgorithm::RSA_PKCS1_SHA256 => 0x0401,
        SslSignatureAlgorithm::RSA_PKCS1_SHA384 => 0x0501,
        SslSignatureAlgorithm::RSA_PKCS1_SHA512 => 0x0601,
        SslSignatureAlgorithm::RSA_PSS_RSAE_SHA256 => 0x0804,
        SslSignatureAlgorithm::RSA_PSS_RSAE_SHA384 => 0x0805,
        SslSignatureAlgorithm::RSA_PSS_RSAE_SHA512 => 0x0806,
        SslSignatureAlgorithm::ECDSA_SECP256R1_SHA256 => 0x0403,
        SslSignatureAlgorithm::ECDSA_SECP384R1_SHA384 => 0x0503,
        SslSignatureAlgorithm::ECDSA_SECP521R1_SHA512 => 0x0603,
        SslSignatureAlgorithm::ED25519 => 0x0807,
        _ => return None,
    })
}

#[derive(Debug)]
struct Usage;

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LISTEN CHAIN.pem KEY-SERVER[,...] SERVER-NAME CA.pem EDGE.pem EDGE-KEY.pem")
    }
}

impl Error for Usage {}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, chain, servers, server_name, ca, edge, edge_key] = arguments.as_slice() else {
        return Err(Usage.into());
    };
    let identity = TlsIdentity::from_files(ca, edge, edge_key)?;
    let builder = Pool::builder(server_name, identity);
    let builder = servers.split(',').fold(builder, PoolBuilder::server);
    let pool = builder.connect().await?;
    let pem = std::fs::read(chain)?;
    let key = KeyId::from_certificate(&pem)?;

    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls())?;
    let mut certificates = X509::stack_from_pem(&pem)?.into_iter();
    let leaf = certificates
        .next()
        .ok_or("the chain holds no certificate")?;
    acceptor.set_certificate(&leaf)?;
    for intermediate in certificates {
        acceptor.add_extra_chain_cert(intermediate)?;
    }
    // The one line that differs from a server with its key in a file.
    acceptor.set_async_private_key_method(RemoteKey { pool, key });
    let acceptor = Arc::new(acceptor.build());

    let listener = TcpListener::bind(listen).await?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        let acceptor = Arc::clone(&acceptor);
        tokio::spawn(async move {
            if let Err(error) = serve(stream, &acceptor).await {
                eprintln!("a connection failed: {error}");
            }
        });
    }
}

/// Answers one request and closes.
async fn serve(stream: TcpStream, acceptor: &SslAcceptor) -> Result<(), Box<dyn Error>> {
    let mut tls = tokio_boring::accept(acceptor, stream)
        .await
        .map_err(|error| error.to_string())?;
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") && request.len() < 8192 {
        if tls.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let body = "Hello. The private key of this site is on another machine.\n";
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length:";
    let answer = format!("{head} {}\r\n\r\n{body}", body.len());
    tls.write_all(answer.as_bytes()).await?;
    Ok(tls.shutdown().await?)
}
