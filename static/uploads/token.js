/* Reads the form's token from its cookie: a login or another tab may have changed it. */
const TIMEOUT = 30000; // milliseconds
const {csrfCookie} = $('#form_upload').data();

export async function getToken() {
  if (!readToken()) {
    await renewToken();
  }
  return readToken();
}

/* Fetches the page, which sets the cookie. */
export const renewToken = () => request(location.href, {cache: 'reload'}).catch($.noop);

const request = (url, options) => fetch(url, {...options, signal: AbortSignal.timeout(TIMEOUT)});

const readToken = () =>
  document.cookie.split('; ').find(cookie => cookie.startsWith(`${csrfCookie}=`))?.split('=')[1];

/* Sends fields, even while the diner leaves the page. Throws if the server does not accept them. */
export async function post(url, fields, isSecond = false) {
  const headers = {'X-CSRFToken': await getToken()};
  const body = new URLSearchParams(fields);
  const {ok, status} = await request(url, {method: 'POST', keepalive: true, headers, body});
  if (status === 403 && !isSecond) {
    await renewToken();
    await post(url, fields, true);
  } else if (!ok) {
    throw new Error(`${url} was answered with status ${status}.`);
  }
}
