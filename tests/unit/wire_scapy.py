"""The same packets as scapy layers: an independent way to the octets."""

from scapy.layers.inet6 import (
    HAO,
    MIP6MH_BA,
    MIP6MH_BE,
    MIP6MH_BRR,
    MIP6MH_BU,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrRouting,
    MIP6MH_CoT,
    MIP6MH_CoTI,
    MIP6MH_HoT,
    MIP6MH_HoTI,
    MIP6OptAltCoA,
    MIP6OptBindingAuthData,
    MIP6OptBRAdvice,
    MIP6OptMNID,
    MIP6OptMobNetPrefix,
    MIP6OptMsgAuth,
    MIP6OptNonceIndices,
    MIP6OptReplayProtection,
    MIP6OptUnknown,
    Pad1,
    PadN,
)

from testbed import scapy as layers
from testbed.wire import message as m
from testbed.wire import option as o
from testbed.wire.flow import FlowIdentification
from testbed.wire.selector import IPv6TrafficSelector

FLOW_LAYERS = {
    "draft": (
        layers.MIP6OptFlowIdentification,
        layers.FlowSubOptBindingReference,
        layers.FlowSubOptTrafficSelector,
    ),
    "rfc6089": (
        layers.MIP6OptFlowIdentificationRFC6089,
        layers.FlowSubOptBindingReferenceRFC6089,
        layers.FlowSubOptTrafficSelectorRFC6089,
    ),
}


def packet_layers(packet, dialect="draft", hop_limit=64):
    """Return the scapy layers of a Packet."""
    stack = IPv6(src=str(packet.source), dst=str(packet.destination), hlim=hop_limit)
    if packet.routing_address is not None:
        stack /= IPv6ExtHdrRouting(type=2, addresses=[str(packet.routing_address)])
    if packet.home_address is not None:
        stack /= IPv6ExtHdrDestOpt(options=[HAO(hoa=str(packet.home_address))])
    return stack / message_layer(packet.message, dialect)


def message_layer(message, dialect="draft"):
    """Return the scapy layer of a message."""
    options = [option_layer(option, dialect) for option in message.options]
    match message:
        case m.BindingRefreshRequest():
            return MIP6MH_BRR(options=options)
        case m.HomeTestInit():
            return MIP6MH_HoTI(cookie=message.home_init_cookie, options=options)
        case m.CareOfTestInit():
            return MIP6MH_CoTI(cookie=message.care_of_init_cookie, options=options)
        case m.HomeTest(index, cookie, token):
            return MIP6MH_HoT(index=index, cookie=cookie, token=token, options=options)
        case m.CareOfTest(index, cookie, token):
            return MIP6MH_CoT(index=index, cookie=cookie, token=token, options=options)
        case m.BindingUpdate():
            flags = [
                (message.acknowledge, "A"),
                (message.home_registration, "H"),
                (message.link_local_compatibility, "L"),
                (message.key_management, "K"),
                (message.map_registration, "M"),
                (message.mobile_router, "R"),
            ]
            return MIP6MH_BU(
                seq=message.sequence,
                flags="".join(name for is_set, name in flags if is_set),
                reserved=0x40 if message.overwrite else 0,
                mhtime=message.lifetime_s // 4,
                options=options,
            )
        case m.BindingAcknowledgement():
            return MIP6MH_BA(
                status=int(message.status),
                flags="K" * message.key_management + "R" * message.mobile_router,
                seq=message.sequence,
                mhtime=message.lifetime_s // 4,
                options=options,
            )
        case m.BindingError():
            return MIP6MH_BE(status=int(message.status), ha=str(message.home_address), options=options)
    raise TypeError(message)


def option_layer(option, dialect="draft"):
    """Return the scapy layer of an option."""
    match option:
        case o.BindingRefreshAdvice(seconds):
            return MIP6OptBRAdvice(rinter=seconds // 4)
        case o.AlternateCareOfAddress(address):
            return MIP6OptAltCoA(acoa=str(address))
        case o.NonceIndices(home, care_of):
            return MIP6OptNonceIndices(olen=4, hni=home, coni=care_of)
        case o.BindingAuthorizationData(authenticator):
            return MIP6OptBindingAuthData(olen=12, authenticator=int.from_bytes(authenticator, "big"))
        case o.MobileNetworkPrefix(prefix):
            return MIP6OptMobNetPrefix(plen=prefix.prefixlen, prefix=str(prefix.network_address))
        case o.MobileNodeIdentifier(subtype, identifier):
            return MIP6OptMNID(subtype=subtype, id=identifier)
        case o.MobilityMessageAuthentication(subtype, spi, authenticator):
            return MIP6OptMsgAuth(subtype=subtype, mspi=spi, authdata=authenticator)
        case o.MessageIdentifier(timestamp):
            return MIP6OptReplayProtection(timestamp=timestamp)
        case o.BindingIdentifier(bid, status, home, priority, address):
            care_of = {} if address is None else {"coa" if address.version == 6 else "coa4": str(address)}
            return layers.MIP6OptBindingIdentifier(bid=bid, status=status, h=home, pri=priority, **care_of)
        case o.FlowSummary(fids):
            return layers.MIP6OptFlowSummary(fids=list(fids))
        case FlowIdentification():
            return flow_layer(option, dialect)
        case o.UnknownOption(kind, data):
            return MIP6OptUnknown(otype=kind, odata=data)
    raise TypeError(option)


def flow_layer(flow, dialect):
    identification, reference, description = FLOW_LAYERS[dialect]
    suboptions = []
    if flow.binding_reference is not None:
        suboptions.append(reference(bids=list(flow.binding_reference)))
    if flow.flow_binding_action is not None:
        suboptions.append(layers.FlowSubOptBindingActionRFC6089(action=flow.flow_binding_action))
    if flow.selector is not None:
        suboptions.append(description(selector=selector_layer(flow.selector)))
    if dialect == "rfc6089":
        return identification(
            fid=flow.fid, fidpri=flow.priority, status=int(flow.status), suboptions=suboptions
        )
    return identification(
        fid=flow.fid,
        pri=flow.priority,
        action=flow.action,
        status=int(flow.status),
        pro=int(flow.pro),
        suboptions=suboptions,
    )


def selector_layer(selector):
    layer = layers.TrafficSelectorIPv4
    if isinstance(selector, IPv6TrafficSelector):
        layer = layers.TrafficSelectorIPv6
    values = {}
    for name in selector.__slots__:
        value = getattr(selector, name)
        if value is not None:
            start, end = (number if isinstance(number, int) else str(number) for number in value)
            values[name] = start
            if end != start:
                values[f"{name}_end"] = end
    return layer(**values)


def without_padding(options):
    """Return the options of a dissected message that are no padding."""
    return [option for option in options if not isinstance(option, Pad1 | PadN)]


def same_fields(dissected, made):
    """Whether `dissected` is of the class of `made` and has each value that `made` was given."""
    if type(dissected) is not type(made):
        return False
    for name, wanted in made.fields.items():
        found = getattr(dissected, name)
        if name in ("options", "suboptions"):
            found = without_padding(found)
            if len(found) != len(wanted) or not all(map(same_fields, found, wanted)):
                return False
        elif name == "selector":
            if not same_fields(found, wanted):
                return False
        elif found != made.getfieldval(name):
            return False
    return True
