//! What this kernel's nftables lacks of what requests need. It refuses a rule whose part it has no code for as it
//! refuses one that leads nowhere (`ENOENT`); so each part is tried by itself, in a table that the same transaction
//! takes away again.

use rustix::io::Errno;

use super::socket::NftRequest;
use super::wire;
use super::*;
use crate::kernel::tlv::Message;

/// The table in which parts are tried. It never comes to be.
const TRIAL: &str = "stead-trial";

/// A part of nftables, by the name of its module or (built in or not at all) its option.
type Part = &'static str;

/// Whether a refusal may come from something missing.
pub(super) fn may_be(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::OPNOTSUPP | Errno::AFNOSUPPORT | Errno::PROTONOSUPPORT)
}

/// The parts that are needed, each with a table that has nothing else of note, in an order that begins with what
/// the others build on.
pub(super) fn trials(requests: &[NftRequest]) -> Vec<(Part, Table)> {
    let mut trials: Vec<(Part, Table)> = Vec::new();
    for (family, sets, chains) in requests.iter().filter_map(parts) {
        for chain in chains.iter().filter(|chain| chain.base.is_some()) {
            let trial = |rules| Table {
                family,
                name: TRIAL,
                sets: sets.to_vec(),
                chains: vec![Chain { rules, ..chain.clone() }],
            };
            trials.extend(chain.base.map(|base| (of_base(family, base), trial(Vec::new()))));
        }
        for (chain, expr) in
            chains.iter().flat_map(|chain| chain.rules.iter().flatten().map(move |e| (chain, e)))
        {
            let Some(part) = of_expr(expr) else { continue };
            let chains = vec![Chain { rules: vec![vec![expr.clone()]], ..chain.clone() }];
            trials.push((part, Table { family, name: TRIAL, sets: sets.to_vec(), chains }));
        }
    }
    let mut seen = Vec::new();
    trials.retain(|(part, _)| {
        !seen.contains(part) && {
            seen.push(*part);
            true
        }
    });
    trials
}

/// The messages of a trial.
pub(super) fn messages(table: &Table) -> Vec<Message> {
    let mut messages = wire::whole_table(table, wire::EXCLUSIVE);
    messages.push(wire::table(wire::DELTABLE, 0, table.family, table.name));
    messages
}

/// What people are told.
pub(super) fn words(parts: &[Part]) -> String {
    let modules: Vec<&str> = parts.iter().copied().filter(|part| !part.starts_with("CONFIG_")).collect();
    let load = format!("`modprobe -a {}`", modules.join(" "));
    let hint = match (modules.len(), parts.len()) {
        (0, _) => "use a kernel that has it".to_owned(),
        (some, all) if some == all => format!("{load}, or use a kernel that has them"),
        _ => format!("{load}, and use a kernel that has the rest"),
    };
    format!("this kernel's nftables lacks {}; hint: {hint}", parts.join(", "))
}

type Parts<'a> = (Family, &'a [Set], &'a [Chain]);

fn parts(request: &NftRequest) -> Option<Parts<'_>> {
    match request {
        NftRequest::Create(table) | NftRequest::Replace(table) => {
            Some((table.family, &table.sets, &table.chains))
        }
        NftRequest::SetChains(family, _, chains) => Some((*family, &[], chains)),
        NftRequest::DeleteTable(..) | NftRequest::Add(_) | NftRequest::Remove(_) => None,
    }
}

fn of_base(family: Family, base: Base) -> Part {
    match (family, base.priority) {
        (Family::Bridge, _) => "CONFIG_NF_TABLES_BRIDGE",
        (Family::Inet, Priority::Dstnat | Priority::Srcnat) => "nft_chain_nat",
        (Family::Inet, Priority::Mangle | Priority::Filter) => "CONFIG_NF_TABLES_INET",
    }
}

/// What is not in every kernel that has nftables at all.
fn of_expr(expr: &Expr) -> Option<Part> {
    match expr {
        Expr::Ct(_) => Some("nft_ct"),
        Expr::SocketTransparent => Some("nft_socket"),
        Expr::OverLimit { .. } => Some("nft_limit"),
        Expr::Masquerade => Some("nft_masq"),
        Expr::Redirect(_) => Some("nft_redir"),
        Expr::Is(..) | Expr::IsNot(..) | Expr::In(..) | Expr::NotIn(..) | Expr::SetMark(_) => None,
        Expr::Accept | Expr::Drop | Expr::Return | Expr::Jump(_) | Expr::Goto(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::rules;

    #[test]
    fn our_rules_need_these_parts() {
        let tables = [rules::guard_table(), rules::engine_table()].map(NftRequest::Replace);
        let needed: Vec<Part> = trials(&tables).into_iter().map(|(part, _)| part).collect();
        let expected = [
            "CONFIG_NF_TABLES_BRIDGE",
            "nft_limit",
            "CONFIG_NF_TABLES_INET",
            "nft_chain_nat",
            "nft_socket",
            "nft_ct",
            "nft_masq",
        ];
        assert_eq!(needed, expected);
    }

    #[test]
    fn what_is_missing_is_named_with_what_mends_it() {
        assert_eq!(
            words(&["nft_ct", "nft_masq"]),
            "this kernel's nftables lacks nft_ct, nft_masq; hint: `modprobe -a nft_ct nft_masq`, or use a kernel that has them"
        );
        assert_eq!(
            words(&["CONFIG_NF_TABLES_BRIDGE"]),
            "this kernel's nftables lacks CONFIG_NF_TABLES_BRIDGE; hint: use a kernel that has it"
        );
    }
}
