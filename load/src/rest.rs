//! A REST client on one kept-alive connection: just enough HTTP/1.1 to measure a server without measuring a client.

use std::fmt::Write;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::target::Target;

pub(crate) struct Rest {
    stream: BufReader<TcpStream>,
    host: String,
    cookies: Vec<(String, String)>,
    project: String,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    cookies: Vec<(String, String)>,
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

    /// Another connection with the same login.
    pub(crate) async fn another(&self, target: &Target) -> Result<Self> {
        Self::connect(target, self.cookies.clone()).await
    }

    async fn connect(target: &Target, cookies: Vec<(String, String)>) -> Result<Self> {
        let host = target.host()?;
        let stream = TcpStream::connect(&host).await.with_context(|| format!("cannot connect to {host}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream), host, cookies, project: target.project.clone() })
    }

    /// Reads below the project.
    pub(crate) async fn get(&mut self, path: &str) -> Result<Value> {
        let path = format!("/projects/{}{path}", self.project);
        self.send("GET", &path, None).await?.expect(200, &path)
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

    async fn send(&mut self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer> {
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
        self.stream.write_all(request.as_bytes()).await?;
        self.answer().await.with_context(|| format!("{method} {path}"))
    }

    async fn answer(&mut self) -> Result<Answer> {
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
        let body = if chunked { self.chunks().await? } else { self.exactly(length).await? };
        Ok(Answer { status, body, cookies })
    }

    async fn chunks(&mut self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let size = self.line().await?;
            let size = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16)?;
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
