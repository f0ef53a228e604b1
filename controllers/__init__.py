"""Flow bindings mirrored into OpenFlow 1.3 switch rules, by an app on the Ryu API.

Pure, no Ryu in sight: `rule` (rules and groups as values), `selection` (traffic selector → masked matches),
`fabric` (which switch does what), `translation` (binding → rules), `gate` (the way to our rules), `switch`
(what is known of one), `mirror` (what to send to which switch, and when), `report`. Around them: `ryu_api`,
`openflow` (rules as messages), `app` (the Ryu app), `feed_client`, `control`, `runner` (start it).
docs/controllers.md says how it works and why so.
"""
