//! A REST client on one kept-alive connection: just enough HTTP/1.1 to measure a server without measuring a client.

use std::fmt::Write;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::target::Target;

const READ_BUFFER: usize = 64 << 10;
/// A connection that rested longer is replaced: a server may be closing it.
const REST_MAX: Duration = Duration::from_secs(3);

pub(crate) struct Rest {
    stream: BufReader<TcpStream>,
    host: String,
    cookies: Vec<(String, String)>,
    project: String,
    used: Instant,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    cookies: Vec<(String, String)>,
}

/// A body that was taken piece by piece.
pub(crate) struct Download {
    /// From the request to the first byte of the body.
    pub(crate) first_byte: Duration,
    pub(crate) whole: Duration,
    pub(crate) bytes: u64,
}

/// What stands before a body.
struct Head {
    status: u16,
    cookies: Vec<(String, String)>,
    length: usize,
    chunked: bool,
}

impl Answer {
    pub(crate) fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("status {} without JSON", self.status))
    }

    /// The body of an answer that must have this status.
    fn expect(self, status: u16, asked: &str) -> Result<Value> {
        ensure!(
            self.status == status,
            "{asked} answered {} instead of {status}: {}",
            self.status,
            String::from_utf8_lossy(&self.body)
        );
        self.json()
    }
}

impl Rest {
    /// Connects and logs in.
    pub(crate) async fn login(target: &Target) -> Result<Self> {
        let mut rest = Self::connect(target, Vec::new()).await?;
        let answer = rest
            .send("POST", "/auth/login", Some(&json!({"email": target.admin_email, "password": target.admin_password})))
            .await?;
        ensure!(answer.status == 200, "login answered {}: {}", answer.status, String::from_utf8_lossy(&answer.body));
        rest.cookies = answer.cookies;
        Ok(rest)
    }

    /// The same connection, below another project.
    pub(crate) fn in_project(&mut self, slug: &str) {
        slug.clone_into(&mut self.project);
    }

    /// Another connection with the same login.
    pub(crate) async fn another(&self, target: &Target) -> Result<Self> {
        Self::connect(target, self.cookies.clone()).await
    }

    async fn connect(target: &Target, cookies: Vec<(String, String)>) -> Result<Self> {
        let host = target.host()?;
        let stream = dial(&host).await?;
        Ok(Self { stream, host, cookies, project: target.project.clone(), used: Instant::now() })
    }

    /// Reads below the project.
    pub(crate) async fn get(&mut self, path: &str) -> Result<Value> {
        let path = format!("/projects/{}{path}", self.project);
        self.send("GET", &path, None).await?.expect(200, &path)
    }

    /// Reads below the project and leaves the body as it is: for who measures a server, not a parser.
    pub(crate) async fn touch(&mut self, path: &str) -> Result<()> {
        let path = format!("/projects/{}{path}", self.project);
        let answer = self.send("GET", &path, None).await?;
        ensure!(answer.status == 200, "{path} answered {}", answer.status);
        Ok(())
    }

    /// Posts below the project.
    pub(crate) async fn post(&mut self, path: &str, body: &Value, status: u16) -> Result<Value> {
        let path = format!("/projects/{}{path}", self.project);
        self.send("POST", &path, Some(body)).await?.expect(status, &path)
    }

    /// Makes the project unless it is there.
    pub(crate) async fn ensure_project(&mut self) -> Result<()> {
        let slug = self.project.clone();
        if self.send("GET", &format!("/projects/{slug}"), None).await?.status == 200 {
            return Ok(());
        }
        let body = json!({"slug": slug, "name": slug});
        self.send("POST", "/projects", Some(&body)).await?.expect(201, "project creation").map(|_| ())
    }

    /// How many tasks the project has.
    pub(crate) async fn task_count(&mut self) -> Result<u64> {
        let page = self.get("/tasks?limit=1&include_total=true").await?;
        match page["total_count"].as_u64() {
            Some(total) => Ok(total),
            None => self.walked_count().await,
        }
    }

    async fn walked_count(&mut self) -> Result<u64> {
        let (mut count, mut cursor) = (0, String::new());
        loop {
            let page = self.get(&format!("/tasks?limit=5000{cursor}")).await?;
            count += page["items"].as_array().context("a page without items")?.len() as u64;
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(count),
            }
        }
    }

    /// Reads below the project a body of any length, handing each piece to `take`.
    pub(crate) async fn download(&mut self, path: &str, take: impl FnMut(&[u8]) -> Result<()>) -> Result<Download> {
        let path = format!("/projects/{}{path}", self.project);
        let started = Instant::now();
        self.ask("GET", &path, None).await?;
        let head = self.head().await?;
        if head.status != 200 {
            let body = self.body(&head).await?;
            bail!("{path} answered {}: {}", head.status, String::from_utf8_lossy(&body));
        }
        self.pieces(&head, started, take).await.with_context(|| format!("GET {path}"))
    }

    async fn send(&mut self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer> {
        self.ask(method, path, body).await?;
        self.answer().await.with_context(|| format!("{method} {path}"))
    }

    async fn ask(&mut self, method: &str, path: &str, body: Option<&Value>) -> Result<()> {
        if self.used.elapsed() > REST_MAX {
            self.stream = dial(&self.host).await?;
        }
        self.used = Instant::now();
        let mut request = format!("{method} /api/v1{path} HTTP/1.1\r\nhost: {}\r\n", self.host);
        if !self.cookies.is_empty() {
            let cookies: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            write!(request, "cookie: {}\r\n", cookies.join("; "))?;
        }
        if let Some((_, token)) = self.cookies.iter().find(|(name, _)| name.ends_with("csrf")) {
            write!(request, "x-csrf-token: {token}\r\n")?;
        }
        match body {
            Some(body) => {
                let body = body.to_string();
                write!(request, "content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())?;
            }
            None => request.push_str("\r\n"),
        }
        Ok(self.stream.write_all(request.as_bytes()).await?)
    }

    async fn answer(&mut self) -> Result<Answer> {
        let head = self.head().await?;
        let body = self.body(&head).await?;
        Ok(Answer { status: head.status, body, cookies: head.cookies })
    }

    async fn body(&mut self, head: &Head) -> Result<Vec<u8>> {
        if head.chunked { self.chunks().await } else { self.exactly(head.length).await }
    }

    async fn head(&mut self) -> Result<Head> {
        let status = self.line().await?;
        let status = status.split(' ').nth(1).context("no status line")?.parse()?;
        let (mut cookies, mut length, mut chunked) = (Vec::new(), 0, false);
        loop {
            let line = self.line().await?;
            let Some((name, value)) = line.split_once(':') else { break };
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse()?,
                "transfer-encoding" => chunked = value.eq_ignore_ascii_case("chunked"),
                "set-cookie" => {
                    let pair = value.split(';').next().unwrap_or_default();
                    cookies.extend(pair.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())));
                }
                _ => {}
            }
        }
        Ok(Head { status, cookies, length, chunked })
    }

    async fn pieces(
        &mut self,
        head: &Head,
        started: Instant,
        mut take: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<Download> {
        let (mut first_byte, mut bytes) = (None, 0_u64);
        let mut left = if head.chunked { self.chunk_size().await? } else { head.length };
        while left > 0 {
            let piece = self.stream.fill_buf().await?;
            if piece.is_empty() {
                bail!("the server closed the connection after {bytes} bytes of the body");
            }
            first_byte.get_or_insert_with(|| started.elapsed());
            let length = piece.len().min(left);
            take(&piece[..length])?;
            self.stream.consume(length);
            bytes += length as u64;
            left -= length;
            if left == 0 && head.chunked {
                self.line().await?;
                left = self.chunk_size().await?;
            }
        }
        if head.chunked {
            while !self.line().await?.is_empty() {}
        }
        let whole = started.elapsed();
        Ok(Download { first_byte: first_byte.unwrap_or(whole), whole, bytes })
    }

    async fn chunk_size(&mut self) -> Result<usize> {
        let size = self.line().await?;
        Ok(usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16)?)
    }

    async fn chunks(&mut self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let size = self.chunk_size().await?;
            if size == 0 {
                while !self.line().await?.is_empty() {}
                return Ok(body);
            }
            body.extend(self.exactly(size).await?);
            self.line().await?;
        }
    }

    async fn exactly(&mut self, length: usize) -> Result<Vec<u8>> {
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await?;
        Ok(body)
    }

    async fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).await? == 0 {
            bail!("the server closed the connection");
        }
        Ok(line.trim_end().to_owned())
    }
}

async fn dial(host: &str) -> Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(host).await.with_context(|| format!("cannot connect to {host}"))?;
    stream.set_nodelay(true)?;
    Ok(BufReader::with_capacity(READ_BUFFER, stream))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    /// A client of a server that answers one request with these bytes.
    async fn answered_with(answer: &'static str) -> Rest {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let host = listener.local_addr().expect("bound").to_string();
        let stream = TcpStream::connect(&host).await.expect("listening");
        let (mut accepted, _) = listener.accept().await.expect("a connection");
        accepted.write_all(answer.as_bytes()).await.expect("open");
        Rest {
            stream: BufReader::new(stream),
            host,
            cookies: Vec::new(),
            project: "p".to_owned(),
            used: Instant::now(),
        }
    }

    #[tokio::test]
    async fn a_download_is_the_whole_body_however_it_is_cut() {
        for answer in [
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\na,b\r\n4\r\n\nc,d\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\na,b\nc,d",
        ] {
            let (mut rest, mut body) = (answered_with(answer).await, Vec::new());
            let take = |piece: &[u8]| {
                body.extend_from_slice(piece);
                Ok(())
            };
            let download = rest.download("/x", take).await.expect("whole");
            assert_eq!((body.as_slice(), download.bytes), (&b"a,b\nc,d"[..], 7));
        }
    }

    #[tokio::test]
    async fn a_download_that_is_cut_short_or_refused_is_an_error() {
        let mut short = answered_with("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\na,b\r\n").await;
        short.stream.get_mut().shutdown().await.expect("open");
        assert!(
            tokio::time::timeout(Duration::from_secs(5), short.download("/x", |_| Ok(())))
                .await
                .is_ok_and(|it| it.is_err())
        );
        let mut refused = answered_with("HTTP/1.1 422 No\r\ncontent-length: 2\r\n\r\nno").await;
        let error = refused.download("/x", |_| Ok(())).await.err().expect("refused").to_string();
        assert!(error.ends_with("answered 422: no"), "{error}");
    }
}
