"""How the page and the report look: one style sheet, in Dask's colours, for screen and paper.

The colours that carry meaning are from M. Okabe and K. Ito's set, which everybody can tell
apart; what must not be missed differs in more than colour.
"""

from __future__ import annotations

SHEET = """
.fcdcc{--ink:#222;--faint:#666;--line:#ddd;--good:#0072B2;--light:#56B4E9;--green:#009E73;
--pink:#CC79A7;--warn:#E69F00;--bad:#D55E00;--tint:#f4f4f4;color:var(--ink);font-size:15px;
line-height:1.4;max-width:1240px;margin:0 auto;padding:8px 4px 40px}
.fcdcc h1{font-size:22px;margin:12px 0 4px}.fcdcc h2{font-size:17px;margin:26px 0 8px}
.fcdcc p{margin:6px 0}.fcdcc p,.fcdcc h1,.fcdcc h2,.fcdcc summary{overflow-wrap:anywhere}
.fcdcc .faint,.fcdcc small{color:var(--faint)}
.fcdcc .say{font-size:19px;padding:12px 16px;background:#fff;border-left:6px solid var(--green);
border-radius:4px;overflow-wrap:anywhere;box-shadow:0 1px 2px #0002}
.fcdcc .say.bad{border-color:var(--bad)}.fcdcc .say.none{border-color:#aaa}
.fcdcc .tiles{display:grid;grid-template-columns:repeat(3,1fr);gap:10px;
margin:14px 0}
@media (min-width:1000px),print{.fcdcc .tiles{grid-template-columns:repeat(9,1fr)}
.fcdcc .tiles.six{grid-template-columns:repeat(6,1fr)}}
.fcdcc .tile{background:#fff;border-radius:4px;padding:8px 12px;box-shadow:0 1px 2px #0002}
.fcdcc .tile b{display:block;font-size:21px;font-weight:600;font-variant-numeric:tabular-nums}
.fcdcc .tile span{color:var(--faint);font-size:13px}
.fcdcc .bar{position:relative;height:14px;background:#e6e6e6;border-radius:2px;overflow:hidden;
min-width:70px}
.fcdcc .bar i{position:absolute;left:0;top:0;bottom:0;background:var(--good)}
.fcdcc .bar i.behind{background:#f2c9a8}.fcdcc .bar i.bad{background:var(--bad)}
.fcdcc .bar i.warn{background:var(--warn)}
.fcdcc .blocks{display:flex;height:22px;background:#e6e6e6;border-radius:3px;overflow:hidden}
.fcdcc .blocks i{display:block;background:var(--good)}
.fcdcc .blocks i.before{background:#9cc3da}
.fcdcc .blocks i.flight{background:repeating-linear-gradient(
45deg,var(--light),var(--light) 5px,#cbe7f7 5px,#cbe7f7 10px)}
.fcdcc .blocks i.failed{background:var(--bad)}
.fcdcc .wide{overflow-x:auto}
.fcdcc table{border-collapse:collapse;width:100%;background:#fff;font-variant-numeric:tabular-nums}
.fcdcc th{text-align:left;font-weight:600;font-size:13px;color:var(--faint)}
.fcdcc th,.fcdcc td{padding:5px 9px;border-bottom:1px solid var(--line);vertical-align:middle;
white-space:nowrap}
.fcdcc td.why{white-space:normal;overflow-wrap:anywhere;min-width:180px}
.fcdcc tr.slow td:first-child{border-left:4px solid var(--bad)}
.fcdcc tr.gone{color:#888}
.fcdcc .map{display:flex;flex-wrap:wrap;gap:3px;margin:8px 0}
.fcdcc .map i{width:16px;height:16px;border-radius:2px;background:#ccc}
.fcdcc .map.many i{width:8px;height:8px;border-radius:1px}
.fcdcc i.even{background:#8fc6e8!important}.fcdcc i.behindhand{background:var(--warn)!important}
.fcdcc i.slow{background:var(--bad)!important}
.fcdcc i.silent{background:repeating-linear-gradient(45deg,#111,#111 3px,var(--bad) 3px,
var(--bad) 6px)!important}
@media (max-width:600px){.fcdcc td:has(.bar),.fcdcc th:empty{display:none}
.fcdcc th,.fcdcc td{padding:5px 6px}.fcdcc table{font-size:14px}}
.fcdcc .key{display:flex;flex-wrap:wrap;gap:4px 16px;font-size:13px;color:var(--faint)}
.fcdcc .key i{display:inline-block;width:12px;height:12px;border-radius:2px;margin-right:5px;
vertical-align:-1px;background:#ccc}
.fcdcc svg{display:block;width:100%}
.fcdcc .axis{display:flex;justify-content:space-between;font-size:12px;color:var(--faint)}
.fcdcc .box{background:#fff;border-radius:4px;padding:12px 14px;box-shadow:0 1px 2px #0002}
.fcdcc .two{display:grid;grid-template-columns:repeat(auto-fit,minmax(310px,1fr));gap:14px}
.fcdcc .curves path{stroke-width:2.2px;stroke:var(--good)}
.fcdcc .curves path.slowest{stroke:var(--bad);stroke-dasharray:6 4}
.fcdcc svg.curves{border-left:1px solid #999;border-bottom:1px solid #999}
.fcdcc .ticks line{stroke:var(--good);stroke-width:2px}
.fcdcc .ticks line.limit{stroke:var(--bad);stroke-width:3px}
.fcdcc svg.ticks{background:var(--tint)}
.fcdcc i.k-good{background:var(--good)!important}.fcdcc i.k-slowest{background:var(--bad)!important}
.fcdcc i.k-behind{background:#f2c9a8!important}
"""

WIDE_SHEET = """
html{background:#fafafa}body{margin:0;font-family:Helvetica,Arial,sans-serif;padding:0 12px}
.fcdcc .lanes{display:grid;grid-template-columns:minmax(90px,max-content) 1fr;gap:3px 10px;
align-items:center}
.fcdcc .lanes span{font-size:12px;overflow:hidden;text-overflow:ellipsis;white-space:nowrap;
max-width:210px}
.fcdcc svg.lane{background:var(--tint)}
.fcdcc .l0{fill:#0072B2}.fcdcc .l1{fill:#56B4E9}.fcdcc .l2{fill:#009E73}.fcdcc .l3{fill:#CC79A7}
.fcdcc .parity{fill:#E6C200}
.fcdcc .waited{fill:#f5cfb3}.fcdcc .ghost{fill:#D55E00}.fcdcc .lost{fill:#111}
.fcdcc .away{fill:#cfcfcf}
.fcdcc i.k-l0{background:#0072B2!important}.fcdcc i.k-l1{background:#56B4E9!important}
.fcdcc i.k-l2{background:#009E73!important}.fcdcc i.k-l3{background:#CC79A7!important}
.fcdcc i.f-share{background:linear-gradient(90deg,#0072B2 25%,#56B4E9 25% 50%,#009E73 50% 75%,
#CC79A7 75%)!important}
.fcdcc i.f-parity{background:#E6C200!important}.fcdcc i.f-waited{background:#f5cfb3!important}
.fcdcc i.f-ghost{background:#D55E00!important}.fcdcc i.f-lost{background:#111!important}
.fcdcc i.f-away{background:#cfcfcf!important}
.fcdcc details{margin:8px 0}.fcdcc summary{cursor:pointer;font-weight:600}
.fcdcc pre{overflow:auto;max-height:420px;background:#fff;padding:10px;font-size:12px}
@media (max-width:600px){.fcdcc .lanes{grid-template-columns:1fr;gap:1px}
.fcdcc .lanes span{max-width:none;margin-top:4px}.fcdcc .say{font-size:17px}}
@media print{html{background:#fff}.fcdcc{max-width:none;font-size:11px}
.fcdcc .box,.fcdcc .tile,.fcdcc .say{box-shadow:none;border:1px solid #ccc}
.fcdcc .say{border-left-width:6px}.fcdcc .wide{overflow:visible}
.fcdcc section{break-inside:avoid}.fcdcc pre{max-height:none;white-space:pre-wrap}
.fcdcc *{-webkit-print-color-adjust:exact;print-color-adjust:exact}}
"""


def pace_kind(pace: float | None, ghosts: int, silent: float, slow: float) -> str:
    """Return how a worker is coloured on the map.

    >>> pace_kind(1.0, 0, 0.0, 1.5), pace_kind(None, 0, 0.0, 1.5), pace_kind(1.0, 2, 4.0, 1.5)
    ('even', '', 'silent')
    """
    if silent > 0:
        return "silent"
    if pace is None:
        return "behindhand" if ghosts else ""
    if pace >= slow:
        return "slow"
    return "behindhand" if ghosts or pace >= 1.2 else "even"
