//! A real LDAP server: Debian's slapd on free ports, in a temporary folder, run by an ordinary user.

use crate::{Port, SOON, account, process, wait_until};
use nix::sys::signal::Signal;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// The entry above all others.
pub const BASE: &str = "dc=example,dc=net";

/// A running server with an entry `uid=NAME,ou=people,dc=example,dc=net` for each of its people. Who has not bound finds nothing.
#[derive(Debug)]
pub struct Directory {
    process: Child,
    home: TempDir,
    port: Port,
    tls_port: Port,
}

impl Directory {
    /// Starts one with these people: name and password. Each has also the mail address `NAME@example.net`, and all share `all@example.net`.
    pub fn start(people: &[(&str, &str)]) -> Directory {
        let (home, port, tls_port) = (account::folder(), Port::take(), Port::take());
        certificates(home.path());
        let data = home.path().join("data");
        std::fs::create_dir(&data).unwrap();
        account::give(&data);
        std::fs::write(home.path().join("slapd.conf"), configuration(home.path())).unwrap();
        fill(home.path(), people);
        let addresses = format!("ldap://127.0.0.1:{}/ ldaps://127.0.0.1:{}/", port.number(), tls_port.number());
        let process = account::server(Path::new("/usr/sbin/slapd"))
            .args(["-d", "0", "-f"])
            .arg(home.path().join("slapd.conf"))
            .args(["-h", &addresses])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let directory = Directory { process, home, port, tls_port };
        wait_until("slapd to answer", SOON, || TcpStream::connect(("127.0.0.1", directory.port())).is_ok());
        directory
    }

    /// Its port for clear text and StartTLS.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Its port for ldaps.
    pub fn tls_port(&self) -> u16 {
        self.tls_port.number()
    }

    /// The certificate of the authority that has signed its own.
    pub fn authority(&self) -> PathBuf {
        self.home.path().join("ca.pem")
    }

    /// Gives a person another password.
    pub fn change_password(&self, name: &str, password: &str) {
        let status = Command::new("ldappasswd")
            .args([
                "-x",
                "-H",
                &format!("ldap://127.0.0.1:{}", self.port()),
                "-D",
                &format!("cn=manager,{BASE}"),
                "-w",
                "manager-password",
            ])
            .args(["-s", password, &format!("uid={name},ou=people,{BASE}")])
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "ldappasswd");
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        process::signal(self.process.id(), Signal::SIGKILL);
        let _ = self.process.wait();
    }
}

fn configuration(home: &Path) -> String {
    let home = home.display();
    format!(
        "include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
TLSCACertificateFile {home}/ca.pem
TLSCertificateFile {home}/server.pem
TLSCertificateKeyFile {home}/server.key
access to attrs=userPassword by anonymous auth by * none
access to * by users read by * none
database mdb
suffix \"{BASE}\"
rootdn \"cn=manager,{BASE}\"
rootpw manager-password
directory {home}/data
"
    )
}

fn fill(home: &Path, people: &[(&str, &str)]) {
    let mut text = format!("dn: {BASE}\nobjectClass: domain\ndc: example\n\n");
    let _ = write!(text, "dn: ou=people,{BASE}\nobjectClass: organizationalUnit\nou: people\n\n");
    for (name, password) in people {
        let _ = write!(
            text,
            "dn: uid={name},ou=people,{BASE}\nobjectClass: inetOrgPerson\nuid: {name}\ncn: {name}\nsn: {name}\n\
             mail: {name}@example.net\nmail: all@example.net\nuserPassword: {password}\n\n"
        );
    }
    let mut slapadd = account::server(Path::new("/usr/sbin/slapadd"))
        .arg("-f")
        .arg(home.join("slapd.conf"))
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    slapadd.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = slapadd.wait_with_output().unwrap();
    assert!(output.status.success(), "slapadd: {}", String::from_utf8_lossy(&output.stderr));
}

/// An authority of its own, and a certificate for localhost and 127.0.0.1.
fn certificates(home: &Path) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let server_key = KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let server = CertificateParams::new(names).unwrap().signed_by(&server_key, &issuer).unwrap();
    for (file, content) in [("ca.pem", authority.pem()), ("server.pem", server.pem()), ("server.key", server_key.serialize_pem())] {
        std::fs::write(home.join(file), content).unwrap();
    }
}
