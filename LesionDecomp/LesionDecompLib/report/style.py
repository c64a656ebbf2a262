"""How the report page looks, on a screen and on sheets of A4 paper."""

STYLE = """
@page { size: A4 portrait; margin: 8mm 9mm; }
* { box-sizing: border-box; }
html { background: #e9ecf0; color: #1c2430; -webkit-print-color-adjust: exact; print-color-adjust: exact; }
body { margin: 0; font: 8.2pt/1.3 "Segoe UI", "Helvetica Neue", Arial, "Liberation Sans", sans-serif; }
main { width: 192mm; max-width: 100%; margin: 6mm auto; padding: 8mm; background: #fff;
  box-shadow: 0 1px 6px rgba(20, 30, 45, .25); box-sizing: content-box; }
header { display: flex; justify-content: space-between; align-items: center; gap: 6mm; margin-bottom: 2mm; }
h1 { margin: 0; font-size: 15pt; font-weight: 600; letter-spacing: -.01em; }
h2 { margin: 0 0 .6mm; font-size: 7.6pt; font-weight: 600; }
p { margin: 0; }
header p { color: #586273; }
header .notice { max-width: 74mm; padding: 1.2mm 2.2mm; border-left: 1mm solid #d88a12; background: #fff5e2;
  color: #7a4a00; font-size: 7.4pt; font-weight: 600; }
.tiles { display: grid; grid-template-columns: repeat(6, 1fr); gap: 1.5mm; margin-bottom: 2mm; }
.tiles div { padding: 1.2mm 2mm; background: #f3f5f8; border-radius: 1mm; }
.tiles div:first-child { background: #1d3450; color: #fff; }
.tiles div:first-child span, .tiles div:first-child i { color: #c8d5e6; }
.tiles span { display: block; font-size: 6.8pt; color: #586273; }
.tiles b { font-size: 14pt; font-weight: 600; font-variant-numeric: tabular-nums; }
.tiles i { margin-left: 1mm; font-style: normal; font-size: 6.8pt; color: #586273; white-space: nowrap; }
.pictures { display: grid; grid-template-columns: 3fr 1fr; gap: 1mm; padding: 1mm; background: #0b0d11; }
.axial { display: grid; grid-template-columns: repeat(3, 1fr); gap: 1mm; align-content: start; }
.coronal { display: grid; gap: 1mm; align-content: start; }
.pictures img { display: block; width: 100%; height: auto; }
.legend { display: flex; align-items: center; flex-wrap: wrap; gap: 1.5mm; margin: 1.2mm 0 2mm; font-size: 7pt;
  color: #586273; }
.legend .bar { position: relative; width: 34mm; height: 2.4mm; }
.legend .bar span { position: absolute; top: -.6mm; bottom: -.6mm; width: .5mm; background: #1c2430; }
.legend .key { width: 6mm; margin-left: 2mm; border-top: .7mm solid; }
.columns { display: grid; grid-template-columns: 1fr 58mm; gap: 3mm; align-items: start; }
.wide { min-width: 0; }
.narrow svg { display: block; width: 100%; height: auto; }
.narrow svg + svg { margin-top: 1mm; }
table { width: 100%; border-collapse: collapse; font-size: 7.1pt; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; font-size: 8.2pt; padding-bottom: .5mm; }
thead th { vertical-align: bottom; font-weight: 500; color: #586273; line-height: 1.12; padding: .4mm .8mm;
  border-bottom: .25mm solid #9aa4b2; text-align: right; }
th:first-child { text-align: left; padding-left: .8mm; white-space: nowrap; }
tbody th { font-weight: 400; }
td, tbody th { padding: .38mm .8mm; border-bottom: .15mm solid #e3e7ec; text-align: right; white-space: nowrap; }
tbody th { text-align: left; }
.whole th, .whole td { font-weight: 600; }
.dense { margin-top: 1.5mm; font-size: 6.9pt; }
.scores { margin-top: 1.2mm; font-size: 6.9pt; }
.warnings, .fine { margin-top: 2mm; padding: 1.1mm 2mm; border-left: 1mm solid #d88a12; background: #fff5e2;
  font-size: 7.3pt; }
.fine { border-color: #5b9a78; background: #eef6f1; }
.warnings ul { margin: .3mm 0 0; padding-left: 4mm; }
.small { margin-top: 2mm; font-size: 5.9pt; line-height: 1.2; color: #3b4554; }
.small > section + section { margin-top: 1.2mm; }
dl { margin: 0; }
.small > section:first-child dl { display: grid; grid-template-columns: auto 1fr auto 1fr; gap: .2mm 2mm; }
dt { font-weight: 600; }
dd { margin: 0; }
.definitions dl { columns: 3; column-gap: 4mm; }
.definitions dt { display: inline; }
.definitions dt::after { content: ": "; }
.definitions dd { display: inline; }
.definitions dd::after { content: ""; display: block; }
footer { margin-top: 2mm; padding-top: 1mm; border-top: .25mm solid #9aa4b2; font-size: 6.3pt; color: #586273; }
@media print {
  html { background: none; }
  main { width: auto; margin: 0; padding: 0; box-shadow: none; }
  .second { break-before: page; font-size: 7.4pt; }
}
@media screen and (max-width: 700px) {
  .tiles { grid-template-columns: repeat(2, 1fr); }
  .pictures, .columns, .axial, .small > section:first-child dl { grid-template-columns: 1fr; }
  .definitions dl { columns: 1; }
  .wide, .dense { overflow-x: auto; display: block; }
}
"""
