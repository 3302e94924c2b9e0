//! Configurations that are not sound: the error names line and field.

use super::*;

/// On a link with this router.
fn error_of(text: &str, router: Option<Ipv4Addr>) -> String {
    let link = ServerLink { link: LAN, address: Ipv4Cidr::new(SERVER, 24), router };
    match Config::parse(text, vec![link], 0) {
        Ok(_) => panic!("accepted: {text}"),
        Err(error) => error.to_string(),
    }
}

/// A server beside the router: it is no router itself, and clients are told of none by chance.
#[test]
fn a_router_beside_the_server() {
    let router = Ipv4Addr::new(198, 51, 100, 254);
    let whole = |last: u8| format!("[[whole]]\naddresses = \"198.51.100.{last}\"\n");
    let reserved = "[[reservation]]\nlink_address = \"02:00:00:00:00:01\"\naddress = \"198.51.100.9\"\n";
    for (text, given, expected) in [
        (whole(5), None, "line 2: whole.addresses: needs `router`"),
        (whole(254), Some(router), "has the own address of a router"),
        (reserved.to_owned(), None, "line 3: reservation.address: is in no pool"),
        (reserved.replace(".9", ".254"), Some(router), "is the own address of a router"),
    ] {
        let error = error_of(&text, given);
        assert!(error.contains(expected), "{text}: {error}");
    }
    assert_eq!(config_with_router(&whole(5), Some(router)).pools[0].router, router);
}

#[test]
fn errors_name_line_and_field() {
    let shared = "[[shared]]\naddresses = \"198.51.100.2\"\nscheme = [0, 4]\n";
    let cases = [
        ("lease = 5\n", "line 1: lease: write seconds, from 60"),
        ("\nrest = 100000\n", "line 2: rest: "),
        ("domain = \"a b\"\n", "line 1: domain: "),
        (
            "dns = [\"1.1.1.1\", \"1.1.1.1\", \"1.1.1.1\", \"1.1.1.1\", \"1.1.1.1\", \"1.1.1.1\", \"1.1.1.1\", \
          \"1.1.1.1\", \"1.1.1.1\"]\n",
            "line 1: dns: ",
        ),
        ("[[shared]]\naddresses = \"198.51.100.2\"\n", "line 2: shared.scheme: is missing"),
        ("[[shared]]\naddresses = \"198.51.100.2\"\nscheme = [9, 9]\n", "line 3: shared.scheme: "),
        ("[[shared]]\naddresses = \"198.51.100.2\"\nscheme = [0, 0]\n", "line 3: shared.scheme: every set"),
        ("[[whole]]\naddresses = \"198.51.100.2\"\nscheme = [0, 4]\n", "line 3: whole.scheme: "),
        ("[[whole]]\naddresses = \"nowhere\"\n", "line 2: whole.addresses: write ADDRESS"),
        ("[[whole]]\naddresses = \"198.51.100.9-198.51.100.5\"\n", "line 2: whole.addresses: write ADDRESS"),
        ("[[whole]]\naddresses = \"203.0.113.9\"\n", "line 2: whole.addresses: is not on the LAN"),
        ("[[whole]]\naddresses = \"198.51.100.1-198.51.100.9\"\n", "has the own address of a router"),
        ("[[whole]]\naddresses = \"198.51.100.250-198.51.100.255\"\n", "no host's"),
        ("[[whole]]\naddresses = \"198.51.100.250-198.51.101.2\"\n", "not all in one network"),
        (
            "[[whole]]\naddresses = \"10.0.0.2\"\nnetwork = \"10.0.0.0/24\"\n",
            "line 2: whole.addresses: needs `router`",
        ),
        ("[[whole]]\naddresses = \"10.0.0.2\"\nnetwork = \"10.0.0.0\"\n", "line 3: whole.network: "),
        (
            "[[whole]]\naddresses = \"10.0.0.2\"\nnetwork = \"10.0.0.0/24\"\nrouter = \"10.0.1.1\"\n",
            "line 4: whole.router: ",
        ),
        (
            "[[whole]]\naddresses = \"10.0.0.2-10.15.0.2\"\nnetwork = \"10.0.0.0/8\"\nrouter = \"10.255.0.1\"\n",
            "more than",
        ),
        (
            "[[whole]]\naddresses = \"198.51.100.5\"\n[[whole]]\naddresses = \"198.51.100.5\"\n",
            "line 4: whole.addresses: overlaps",
        ),
    ];
    let error = |text: &str| error_of(text, Some(SERVER));
    for (text, expected) in cases {
        let error = error(text);
        assert!(error.contains(expected), "{text}: {error}");
    }
    let who = "link_address = \"02:00:00:00:00:01\"\n";
    let cases = [
        ("address = \"198.51.100.2\"\n", "line 5: reservation.address: write either"),
        ("address = \"198.51.100.2\"\nclient = \"xyz\"\n", "line 6: reservation.client: "),
        (
            "address = \"198.51.100.2\"\nlink_address = \"03:00:00:00:00:01\"\n",
            "line 6: reservation.link_address: ",
        ),
        (&format!("{who}address = \"198.51.100.2\"\n"), "line 6: reservation.address: is shared"),
        (&format!("{who}address = \"198.51.100.2\"\npsid = 16\n"), "line 7: reservation.psid: "),
        (&format!("{who}address = \"198.51.100.2\"\nport = 5000\n"), "line 7: reservation.port: "),
        (&format!("{who}address = \"198.51.100.2\"\npsid = 1\nport = 22\n"), "not both"),
        (&format!("{who}address = \"198.51.100.9\"\npsid = 1\n"), "of no [[shared]] pool"),
        (&format!("{who}address = \"198.51.100.1\"\n"), "the own address of a router"),
        (&format!("{who}address = \"10.0.0.1\"\n"), "not on the LAN"),
    ];
    for (text, expected) in cases {
        let error = error(&format!("{shared}[[reservation]]\n{text}"));
        assert!(error.contains(expected), "{text}: {error}");
    }
    let twice = format!(
        "{shared}[[reservation]]\n{who}address = \"198.51.100.2\"\npsid = 0\n\
         [[reservation]]\n{who}address = \"198.51.100.2\"\nport = 22\n"
    );
    assert!(
        error(&twice).contains("line 10: reservation.address: has ports that another"),
        "{}",
        error(&twice)
    );
    assert!(error("[[shared]]\naddress = 1\n").contains("line 2"), "an unknown field");
}
