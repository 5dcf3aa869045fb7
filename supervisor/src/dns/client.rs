//! Questions to name servers by DNS itself: the names of a fleet that has a resolv_conf of its own, and the serial numbers of zones.
//!
//! The resolver is an asynchronous library. Its runtime lives on one thread here, which is all that is asynchronous in the supervisor:
//! questions come through a channel, answers leave through a function.

use super::Addresses;
use super::resolv_conf::ResolvConf;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ServerOrderingStrategy,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RData};
use hickory_resolver::{Resolver, TokioResolver};
use std::collections::BTreeSet;
use std::path::Path;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

enum Question {
    Addresses(String, Box<dyn FnOnce(Addresses) + Send>),
    Serial(String, Box<dyn FnOnce(Result<u32, String>) + Send>),
}

/// The way to the resolver's thread.
#[derive(Debug)]
pub(crate) struct Client(UnboundedSender<Question>);

impl Client {
    /// Starts one that asks the name servers of this resolv.conf. The error says what is wrong with it.
    pub(crate) fn start(file: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(file).map_err(|error| format!("could not read {}: {error}", file.display()))?;
        let conf = ResolvConf::read(&text).map_err(|error| format!("{}: {error}", file.display()))?;
        let (ask, questions) = unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("no runtime for DNS: {error}"))?;
        let resolver = runtime.block_on(async { resolver(&conf) })?;
        let serve = move || runtime.block_on(serve(resolver, questions));
        std::thread::Builder::new()
            .name("dns client".into())
            .spawn(serve)
            .map_err(|error| format!("no thread for DNS: {error}"))?;
        Ok(Self(ask))
    }

    /// Asks for the addresses of a name. `answer` is called on the resolver's thread and must not block.
    pub(crate) fn addresses(&self, host: &str, answer: impl FnOnce(Addresses) + Send + 'static) {
        self.ask(Question::Addresses(host.to_owned(), Box::new(answer)));
    }

    /// Asks for the serial number of a zone. `answer` is called as for `addresses`.
    pub(crate) fn serial(&self, zone: &str, answer: impl FnOnce(Result<u32, String>) + Send + 'static) {
        self.ask(Question::Serial(zone.to_owned(), Box::new(answer)));
    }

    fn ask(&self, question: Question) {
        if self.0.send(question).is_err() {
            log::error!("the thread that asks name servers has ended");
        }
    }
}

fn resolver(conf: &ResolvConf) -> Result<TokioResolver, String> {
    let servers = conf.servers.iter().map(|server| {
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
            connection.port = server.port();
            connection
        });
        NameServerConfig::new(server.ip(), true, connections.into())
    });
    let search: Vec<Name> = conf.search.iter().filter_map(|domain| Name::from_utf8(domain).ok()).collect();
    let config = ResolverConfig::from_parts(None, search, servers.collect());
    let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
    let options = builder.options_mut();
    options.ndots = conf.dots;
    options.timeout = conf.timeout;
    options.attempts = conf.attempts;
    // dns_max_ttl says how long an answer is used, and it is kept where every worker's question arrives.
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
    builder.build().map_err(|error| error.to_string())
}

async fn serve(resolver: TokioResolver, mut questions: UnboundedReceiver<Question>) {
    while let Some(question) = questions.recv().await {
        let resolver = resolver.clone();
        tokio::spawn(async move {
            match question {
                Question::Addresses(host, answer) => answer(addresses(&resolver, &host).await),
                Question::Serial(zone, answer) => answer(serial(&resolver, &zone).await),
            }
        });
    }
}

async fn addresses(resolver: &TokioResolver, host: &str) -> Addresses {
    let found = resolver.lookup_ip(host).await.map_err(|error| error.to_string())?;
    let mut seen = BTreeSet::new();
    let ips: Vec<_> = found.iter().filter(|ip| seen.insert(*ip)).collect();
    if ips.is_empty() { Err("it has no address".to_owned()) } else { Ok(ips) }
}

async fn serial(resolver: &TokioResolver, zone: &str) -> Result<u32, String> {
    // The dot at the end: no search list.
    let found = resolver.soa_lookup(format!("{zone}.")).await.map_err(|error| error.to_string())?;
    let serial = found.answers().iter().find_map(|record| match &record.data {
        RData::SOA(soa) => Some(soa.serial),
        _ => None,
    });
    serial.ok_or_else(|| "it has no SOA record".to_owned())
}
