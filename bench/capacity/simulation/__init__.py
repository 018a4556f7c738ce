"""A discrete-event simulation of a deployment, in simpy: `World(profile, deployment).run(asks)`.

    client ─▶ decoder (memory ─▶ Redis ─▶ encoder) ─▶ engine's steps ─▶ first token, last token

Where a request goes is decided by the SDK's own code; how long things take, by a measured profile.
"""
