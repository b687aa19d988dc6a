//! Where a request comes from.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::header::USER_AGENT;
use axum::http::request::Parts;

use crate::config::Network;
use crate::edge::app::App;
use crate::edge::error::ApiError;

/// The address and program of whoever sent a request.
#[derive(Clone, Debug)]
pub struct Client {
    pub ip: IpAddr,
    pub user_agent: Option<String>,
}

impl Client {
    pub fn of(app: &App, parts: &Parts) -> Self {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
        let peer = peer.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)).to_canonical();
        let forwarded = parts.headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
        let hops: Vec<&str> = forwarded.flat_map(|value| value.split(',')).collect();
        let user_agent = parts.headers.get(USER_AGENT).and_then(|value| value.to_str().ok());
        Self {
            ip: origin(peer, &hops, &app.config.trusted_proxies),
            user_agent: user_agent.map(|text| text.chars().take(256).collect()),
        }
    }
}

/// Walks back from the peer through proxies that are trusted; the first that is not is the client.
fn origin(peer: IpAddr, hops: &[&str], trusted: &[Network]) -> IpAddr {
    let mut ip = peer;
    for hop in hops.iter().rev() {
        if !trusted.iter().any(|network| network.contains(ip)) {
            return ip;
        }
        let Ok(before) = hop.trim().parse::<IpAddr>() else { return ip };
        ip = before.to_canonical();
    }
    ip
}

impl FromRequestParts<App> for Client {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        Ok(Self::of(app, parts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forwarded_address_counts_only_behind_a_trusted_proxy() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let trusted: Vec<Network> = vec!["10.0.0.0/8".parse().expect("a network")];
        assert_eq!(origin(ip("9.9.9.9"), &["1.1.1.1"], &trusted), ip("9.9.9.9"));
        assert_eq!(origin(ip("10.0.0.1"), &["6.6.6.6", " 1.1.1.1", "10.0.0.2"], &trusted), ip("1.1.1.1"));
        assert_eq!(origin(ip("10.0.0.1"), &["nonsense"], &trusted), ip("10.0.0.1"));
        assert_eq!(origin(ip("10.0.0.1"), &["1.1.1.1"], &[]), ip("10.0.0.1"));
    }
}
