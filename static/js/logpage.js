// The page of all logs.
import { follow } from "./logs.js";

follow();
document.querySelector(".log-list [aria-current]")?.scrollIntoView({ block: "nearest" });
