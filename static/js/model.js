// One model: charts of all that served it.
import { charts } from "./charts.js";

charts(document.getElementById("charts"));
