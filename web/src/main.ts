// The dashboard: shows what the node reports and chats through its API, as any program would.
import { mount } from "svelte";
import App from "./App.svelte";
import "uplot/dist/uPlot.min.css";
import "./app.css";

mount(App, { target: document.getElementById("app")! });
