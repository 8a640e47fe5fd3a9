// Requests to the service. What it answers is text to be shown as text.

let token = sessionStorage.getItem("token") || "";

export class NeedsToken extends Error {}

export function setToken(text) {
  token = text;
  sessionStorage.setItem("token", text);
}

export const headers = () => (token ? { Authorization: `Bearer ${token}` } : {});

export async function ask(method, path, body, signal) {
  let answer;
  try {
    answer = await fetch(path, { method, body, signal, headers: headers() });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The service does not answer; is it running?");
  }
  if (answer.ok) return answer;
  if (answer.status === 401) throw new NeedsToken("This service asks for a token.");
  let said = `The service answered ${answer.status}.`;
  try {
    said = (await answer.json()).error;
  } catch { /* not its own words */ }
  throw new Error(said);
}

export const query = (values) => new URLSearchParams(values).toString();

export const percent = (share) => `${(100 * share).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`;
