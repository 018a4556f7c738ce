"""How many replicas, how much memory and network: `python -m bench.capacity {measure,plan,simulate,validate,check}`.

- `measure`: a profile, what each part of the services costs on this machine.
- `plan`: from a load and a profile to replicas of each kind, by formulas.
- `simulate`: the same load through a simulated deployment, up to a thousand replicas.
- `validate`: the simulation against the services themselves, on two cores.
- `check`: plans against simulations of them.
"""
