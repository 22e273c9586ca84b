import { connect } from "./base.js";
import { live } from "./live.js";
import { terminal } from "./term.js";

live();
// The terminal is to hear of the machine, too, which is told first of all.
terminal().finally(connect);
