-- Wireshark dissector of flow bindings: the Flow Identification option of
-- draft-soliman-monami6-flow-binding-05 (as option 18) and those of RFC 6089 (44, 45), with the traffic
-- selectors of RFC 6088. Wireshark itself shows their octets at most.
--
--     tshark -X lua_script:docs/wireshark/flow-binding.lua -r capture.pcap
--     wireshark: copy it to the folder "Personal Lua Plugins" (Help, About Wireshark, Folders)
--
-- Filters: flowbind.fid == 1, flowbind.status > 127, flowbind.bid == 2, flowbind.selector.source_port == 22 ...

local flowbind = Proto("flowbind", "Mobile IPv6 Flow Binding")

local actions = { [0] = "forward (as in §5 of the draft)", [1] = "forward", [2] = "discard", [3] = "n-cast" }
local operations = { [0] = "add", [1] = "replace", [2] = "refresh", [15] = "remove" }
local draft_statuses = {
    [0] = "flow binding successful",
    [128] = "rejected, reason unspecified",
    [129] = "poorly formed",
    [130] = "administratively prohibited",
    [131] = "identification by prefix not supported",
    [132] = "identification by port numbers not supported",
    [133] = "identification with flow label not supported",
    [134] = "identification with SPI not supported",
    [135] = "FID already in use",
    [136] = "FID not found",
    [137] = "classifier language not supported",
    [138] = "discard function not supported",
    [139] = "n-cast function not supported",
}
local rfc6089_statuses = {
    [0] = "flow binding successful",
    [128] = "administratively prohibited",
    [129] = "rejected, reason unspecified",
    [130] = "malformed",
    [131] = "BID not found",
    [132] = "FID not found",
    [133] = "traffic selector format not supported",
}
local binding_actions = {
    [11] = "add", [12] = "delete", [13] = "modify", [14] = "refresh", [15] = "move", [16] = "revoke",
}
local formats = { [1] = "IPv4 binary", [2] = "IPv6 binary" }

local fields = {
    type = ProtoField.uint8("flowbind.type", "Option type"),
    length = ProtoField.uint8("flowbind.length", "Option length"),
    fid = ProtoField.uint16("flowbind.fid", "Flow Identifier (FID)"),
    priority = ProtoField.uint16("flowbind.priority", "Priority"),
    action = ProtoField.uint8("flowbind.action", "Action", base.DEC, actions),
    status = ProtoField.uint8("flowbind.status", "Status", base.DEC, draft_statuses),
    rfc6089_status = ProtoField.uint8("flowbind.status", "Status", base.DEC, rfc6089_statuses),
    pro = ProtoField.uint8("flowbind.pro", "PRO", base.DEC, operations, 0xf0),
    bid = ProtoField.uint16("flowbind.bid", "Binding ID (BID)"),
    format = ProtoField.uint8("flowbind.selector.format", "Traffic selector format", base.DEC, formats),
    flags = ProtoField.uint16("flowbind.selector.flags", "Flags", base.HEX),
    binding_action = ProtoField.uint8("flowbind.binding_action", "Flow Binding Action", base.DEC, binding_actions),
    unknown = ProtoField.bytes("flowbind.unknown", "Unknown"),
}
local malformed = ProtoExpert.new(
    "flowbind.malformed", "Flow binding is malformed", expert.group.MALFORMED, expert.severity.ERROR
)
flowbind.experts = { malformed }

-- Each selector's fields in the order of the flags: name, octets, maker of a ProtoField.
local selectors = {
    [1] = {
        { "source_address", 4, ProtoField.ipv4 },
        { "destination_address", 4, ProtoField.ipv4 },
        { "spi", 4, ProtoField.uint32 },
        { "source_port", 2, ProtoField.uint16 },
        { "destination_port", 2, ProtoField.uint16 },
        { "dscp", 1, ProtoField.uint8 },
        { "protocol", 1, ProtoField.uint8 },
    },
    [2] = {
        { "source_address", 16, ProtoField.ipv6 },
        { "destination_address", 16, ProtoField.ipv6 },
        { "spi", 4, ProtoField.uint32 },
        { "flow_label", 4, ProtoField.uint32 },
        { "source_port", 2, ProtoField.uint16 },
        { "destination_port", 2, ProtoField.uint16 },
        { "traffic_class", 1, ProtoField.uint8 },
        { "next_header", 1, ProtoField.uint8 },
    },
}

local registered = {}
for _, field in pairs(fields) do
    table.insert(registered, field)
end
local selector_fields = {}
for format, layout in pairs(selectors) do
    -- ipv4 and ipv6 fields cannot share a name
    local prefix = format == 1 and "flowbind.selector.ipv4." or "flowbind.selector."
    selector_fields[format] = {}
    for index, entry in ipairs(layout) do
        local name, octets, make = entry[1], entry[2], entry[3]
        local label = name:gsub("_", " ")
        local pair = { make(prefix .. name, "Start of " .. label), make(prefix .. name .. "_end", "End of " .. label) }
        selector_fields[format][index] = { octets = octets, pair[1], pair[2] }
        table.insert(registered, pair[1])
        table.insert(registered, pair[2])
    end
end
flowbind.fields = registered

local function is_set(flags, bit)
    return math.floor(flags / 2 ^ (15 - bit)) % 2 == 1
end

-- Dissect a traffic selector, which starts at its format.
local function dissect_selector(tvb, tree)
    if tvb:len() < 2 then
        tree:add_proto_expert_info(malformed, "Traffic selector is too short for its format")
        return
    end
    local format = tvb(0, 1):uint()
    tree:add(fields.format, tvb(0, 1))
    local layout = selector_fields[format]
    if not layout then
        if tvb:len() > 2 then
            tree:add(fields.unknown, tvb(2))
        end
        return
    end
    if tvb:len() < 6 then
        tree:add_proto_expert_info(malformed, "Traffic selector is too short for its flags")
        return
    end
    local flags, offset = tvb(2, 2):uint(), 6
    tree:add(fields.flags, tvb(2, 2))
    for index, entry in ipairs(layout) do
        for which = 1, 2 do
            if is_set(flags, 2 * index + which - 3) then
                if offset + entry.octets > tvb:len() then
                    tree:add_proto_expert_info(malformed, "Traffic selector is truncated")
                    return
                end
                tree:add(entry[which], tvb(offset, entry.octets))
                offset = offset + entry.octets
            end
        end
    end
    if offset < tvb:len() then
        tree:add_proto_expert_info(malformed, "Octets after the last field of the traffic selector")
    end
end

local function dissect_bids(tvb, tree)
    if tvb:len() == 0 or tvb:len() % 2 == 1 then
        tree:add_proto_expert_info(malformed, "Binding Reference is not made of BIDs")
    end
    for offset = 0, tvb:len() - 2, 2 do
        tree:add(fields.bid, tvb(offset, 2))
    end
end

-- Dissect sub-options. `counted` octets of a sub-option's own type and length are in its length.
local function dissect_sub_options(tvb, tree, counted, reference)
    local offset = 8
    while offset < tvb:len() do
        local kind = tvb(offset, 1):uint()
        if kind == 0 then
            offset = offset + 1
        else
            local length = 0
            if offset + 1 < tvb:len() then
                length = 2 - counted + tvb(offset + 1, 1):uint()
            end
            if length < 2 or offset + length > tvb:len() then
                tree:add_proto_expert_info(malformed, "Sub-option has a length that cannot be")
                return
            end
            local names = { [reference] = "Binding Reference", [3] = "Traffic Selector" }
            if counted == 0 then
                names[4] = "Flow Binding Action" -- RFC 7109
            end
            local name = names[kind] or "Sub-option " .. kind
            local branch = tree:add(flowbind, tvb(offset, length), name)
            if length > 2 then
                local content = tvb(offset + 2, length - 2):tvb()
                if kind == reference then
                    dissect_bids(content, branch)
                elseif kind == 3 then
                    dissect_selector(content, branch)
                elseif names[kind] and length == 4 then
                    branch:add(fields.binding_action, tvb(offset + 3, 1))
                else
                    branch:add(fields.unknown, tvb(offset + 2, length - 2))
                end
            elseif names[kind] then
                branch:add_proto_expert_info(malformed, name .. " is empty")
            end
            offset = offset + length
        end
    end
end

local function start(tvb, tree, name)
    local branch = tree:add(flowbind, tvb(), "MIPv6 Option - " .. name)
    branch:add(fields.type, tvb(0, 1))
    branch:add(fields.length, tvb(1, 1))
    return branch
end

local function dissect_draft(tvb, tree)
    local branch = start(tvb, tree, "Flow Identification")
    if tvb:len() < 8 then
        branch:add_proto_expert_info(malformed, "Flow Identification is shorter than 8 octets")
        return
    end
    branch:add(fields.priority, tvb(2, 1))
    branch:add(fields.fid, tvb(3, 2))
    branch:add(fields.action, tvb(5, 1))
    branch:add(fields.status, tvb(6, 1))
    branch:add(fields.pro, tvb(7, 1))
    branch:append_text(": FID " .. tvb(3, 2):uint())
    dissect_sub_options(tvb, branch, 2, 1)
end

local function dissect_rfc6089(tvb, tree)
    local branch = start(tvb, tree, "Flow Identification (RFC 6089)")
    if tvb:len() < 8 then
        branch:add_proto_expert_info(malformed, "Flow Identification is shorter than 8 octets")
        return
    end
    branch:add(fields.fid, tvb(2, 2))
    branch:add(fields.priority, tvb(4, 2))
    branch:add(fields.rfc6089_status, tvb(7, 1))
    branch:append_text(": FID " .. tvb(2, 2):uint())
    dissect_sub_options(tvb, branch, 0, 2)
end

local function dissect_summary(tvb, tree)
    local branch = start(tvb, tree, "Flow Summary")
    for offset = 2, tvb:len() - 2, 2 do
        branch:add(fields.fid, tvb(offset, 2))
    end
end

local options = { [18] = dissect_draft, [44] = dissect_summary, [45] = dissect_rfc6089 }

-- Wireshark hands over one whole option, type and length included.
function flowbind.dissector(tvb, _, tree)
    if tvb:len() >= 2 then
        options[tvb(0, 1):uint()](tvb, tree)
    end
    return tvb:len()
end

for kind in pairs(options) do
    DissectorTable.get("mip6.option"):add(kind, flowbind)
end
