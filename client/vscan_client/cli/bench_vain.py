"""Options of `vscan bench` that say nothing in a run of this kind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from vscan.errors import InvalidArgument
from vscan_client.cli.given import Vain, refuse_vain, typed

_DRAWN = ("requests", "images", "zipf", "images_per_question", "new_images", "questions", "question_words")
_TO_A_SERVER = ("server", "tls_ca", "tls_cert", "tls_key", "insecure", "token_file", "metrics")
_OF_A_COMPARISON = ("rounds", "cases", "many", "many_requests")
_REDUCING = ("reduction", "budget", "rater", "keep")


def refuse_vain_options(ctx: typer.Context) -> None:
    """Raises InvalidArgument for two options that exclude each other, and for one that would change nothing."""
    options = ctx.params
    _refuse_both(options)
    refuse_vain(ctx, _rules(options))


def check_from(ctx: typer.Context) -> None:
    """Raises InvalidArgument for any option beside `--from` and `--plot`, which is needed."""
    others = [option for name, option in typed(ctx).items() if name not in ("kept", "plot_file")]
    if others:
        raise InvalidArgument(others[0], "beside --from, which measures nothing", limit="--from REPORT --plot PICTURE")
    if ctx.params["plot_file"] is None:
        raise InvalidArgument("--plot", "missing beside --from")


def _refuse_both(options: dict[str, Any]) -> None:
    rate, clients, trace, compare = (options[name] for name in ("rate", "clients", "trace", "compare"))
    if rate is not None and clients is not None:
        raise InvalidArgument("--clients", "beside --rate", limit="one of the two")
    if rate is not None and trace is not None:
        raise InvalidArgument("--rate", "beside --trace, which says when requests come", limit="one of the two")
    if trace is not None and compare:
        raise InvalidArgument("--trace", "beside --compare, whose rounds differ", limit="one of the two")
    if options["up"] + compare + options["only_peers"] > 1:
        raise InvalidArgument("--up", "more than one of --up, --compare and --only-peers", limit="one of them")


def _rules(options: dict[str, Any]) -> Iterator[Vain]:
    here = options["up"] or options["compare"]
    transformers, only_peers, compare = options["peer"] is not None, options["only_peers"], options["compare"]
    cases = options["cases"].replace(" ", "").split(",")
    yield Vain(("model", "settings", "device"), not (here or transformers), "with what is started here")
    yield Vain(_TO_A_SERVER, here or only_peers, "with --server")
    yield Vain(("peer_model", "peer_body", "peer_token_file"), options["peer_url"] is None, "with --peer-url")
    yield Vain(("peer_batch",), not transformers, "with --peer transformers")
    yield Vain(_REDUCING, only_peers, "without --only-peers")
    yield Vain(_OF_A_COMPARISON, not compare, "with --compare")
    yield Vain(("warm_up",), compare, "without --compare, whose first round warms up")
    yield Vain(("new_images",), compare, "without --compare, whose case many-images has new ones")
    yield Vain(("many", "many_requests"), compare and "many-images" not in cases, "with the case many-images")
    yield Vain(("requests", "zipf", "images_per_question"), compare and "one-image" not in cases, "with the case one-image")
    yield from _of_questions(options)
    yield Vain(("max_late_ms",), _is_closed(options), "with an open loop: --rate, or --trace without --clients")
    yield Vain(("raw",), options["json_file"] is None, "with --json")


def _of_questions(options: dict[str, Any]) -> Iterator[Vain]:
    made, without_images = options["images"].isdigit(), options["images_per_question"] == 0
    yield Vain(_DRAWN, options["trace"] is not None, "without --trace, whose requests are its own")
    yield Vain(("image_side",), not made, "with pictures that are made")
    yield Vain(("image_side", "zipf", "new_images"), without_images and not options["compare"], "with images")
    yield Vain(("zipf",), options["new_images"], "without --new-images, none of which comes twice")
    yield Vain(("images",), options["new_images"] and made, "with a folder beside --new-images, which are as many as it takes")
    yield Vain(("question_words",), options["questions"] is not None, "without --questions")


def _is_closed(options: dict[str, Any]) -> bool:
    return options["rate"] is None and (options["trace"] is None or options["clients"] is not None)
