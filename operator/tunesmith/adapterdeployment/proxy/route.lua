-- What the front proxy of a serving pod decides: who may ask, and which version answers.
--
-- The sidecar stores a routing table: served name -> versions and their weights. Each request names
-- a served name; the name of the version that is to answer takes its place. See nginx.conf.

local cjson = require "cjson.safe"
local ffi = require "ffi"

local VLLM = "127.0.0.1:8001"
local KEYS_FOLDER = "/etc/tunesmith/keys"
local LEAVING_FILE = "/run/tunesmith/leaving"

local SECONDS_BETWEEN_LOOKS_AT_KEYS = 5
local SECONDS_BETWEEN_LOOKS_AT_LEAVING = 0.5

local ERROR_TYPES = {
  [400] = "BadRequestError",
  [401] = "AuthenticationError",
  [403] = "PermissionDeniedError",
  [404] = "NotFoundError",
  [405] = "MethodNotAllowedError",
  [413] = "RequestTooLargeError",
  [500] = "InternalServerError",
  [502] = "BadGatewayError",
  [503] = "ServiceUnavailableError",
  [504] = "GatewayTimeoutError",
}

-- Refusals that nginx itself may come to.
local EXPLANATIONS = {
  [404] = "There is POST /v1/chat/completions, POST /v1/completions, GET /v1/models and "
    .. "GET /health and /ready, and nothing else.",
  [408] = "The request did not arrive in time.",
  [413] = "The body is larger than 8 MiB.",
  [502] = "The model server does not answer.",
  [504] = "The model server did not answer in time.",
}

local routing = ngx.shared.routing
local traffic = ngx.shared.traffic

local route = {}

-- Answers ------------------------------------------------------------------------------------

local function send(status, text)
  -- So that what is left of the body is never taken for the next request.
  ngx.req.discard_body()
  ngx.status = status
  ngx.header.content_type = "application/json"
  ngx.header.content_length = #text
  ngx.print(text)
  ngx.exit(ngx.HTTP_OK)
end

-- Ends the request, in OpenAI's shape. Does not return.
local function refuse(status, message)
  local type = ERROR_TYPES[status] or "BadRequestError"
  send(status, cjson.encode { error = { message = message, type = type, code = status } })
end

local function require_method(method)
  if ngx.req.get_method() ~= method then
    ngx.header["Allow"] = method
    refuse(405, "Ask " .. ngx.var.uri .. " with " .. method .. ".")
  end
end

-- Looks at most once in `seconds` and keeps what was found.
local function kept_for(seconds, look)
  local found, looked_at
  return function()
    local age = looked_at and ngx.now() - looked_at
    if not age or age >= seconds or age < 0 then
      found, looked_at = look(), ngx.now()
    end
    return found
  end
end

-- Files --------------------------------------------------------------------------------------

-- Lua lists no folders. The entry is that of 64-bit Linux, the same in glibc and musl.
ffi.cdef [[
  struct tunesmith_entry {
    uint64_t inode;
    int64_t offset;
    uint16_t length;
    uint8_t kind;
    char name[256];
  };
  void *opendir(const char *path);
  struct tunesmith_entry *readdir(void *folder);
  int closedir(void *folder);
  int access(const char *path, int mode);
]]

local FILE_EXISTS = 0
local NO_SUCH_FILE = 2

local function exists(path)
  return ffi.C.access(path, FILE_EXISTS) == 0
end

-- Names in a folder, sorted; nil if there is no such folder.
local function names_in(path)
  local folder = ffi.C.opendir(path)
  if folder == nil then
    -- A folder that is there but closed to us holds nothing, rather than being absent.
    return ffi.errno() ~= NO_SUCH_FILE and {} or nil
  end
  local names = {}
  local entry = ffi.C.readdir(folder)
  while entry ~= nil do
    names[#names + 1] = ffi.string(entry.name)
    entry = ffi.C.readdir(folder)
  end
  ffi.C.closedir(folder)
  table.sort(names)
  return names
end

local function trimmed_content(path)
  local file = io.open(path, "rb")
  local content = file and file:read("*a")
  if file then
    file:close()
  end
  return content and content:match("^%s*(.-)%s*$") or ""
end

route.leaving = kept_for(SECONDS_BETWEEN_LOOKS_AT_LEAVING, function()
  return exists(LEAVING_FILE)
end)

-- Clients ------------------------------------------------------------------------------------

-- Key -> client; nil where everybody may ask. If clients share a key, the first name has it.
local clients_by_key = kept_for(SECONDS_BETWEEN_LOOKS_AT_KEYS, function()
  local names = names_in(KEYS_FOLDER)
  if not names then
    return nil
  end
  local clients = {}
  for _, name in ipairs(names) do
    -- Kubernetes keeps folders of its own beside the files of a Secret: ..data and others.
    local is_file = name ~= "." and name:sub(1, 2) ~= ".."
    local key = is_file and trimmed_content(KEYS_FOLDER .. "/" .. name) or ""
    if key ~= "" and not clients[key] then
      clients[key] = name
    end
  end
  return clients
end)

-- nil where everybody may ask.
local function count_of_clients()
  local clients, number = clients_by_key(), 0
  for _ in pairs(clients or {}) do
    number = number + 1
  end
  return clients and number
end

-- Who asks; nil where everybody may ask.
local function asking_client()
  local clients = clients_by_key()
  if not clients then
    return nil
  end
  local header = ngx.var.http_authorization or ""
  local key = header:match("^[Bb][Ee][Aa][Rr][Ee][Rr] +(.-)%s*$")
  local client = key and clients[key]
  if not client then
    ngx.header["WWW-Authenticate"] = "Bearer"
    refuse(401, "Give a valid API key: Authorization: Bearer KEY.")
  end
  return client
end

-- Whether a name fits a pattern in which * stands for any characters. No Lua pattern is made of it:
-- those can take very long.
local function matches(pattern, name)
  local head, rest = pattern:match("^([^*]*)(.*)$")
  if rest == "" then
    return name == head
  end
  if name:sub(1, #head) ~= head then
    return false
  end
  local at = #head + 1
  local middle, tail = rest:match("^(.*)%*([^*]*)$")
  for piece in middle:gmatch("[^*]+") do
    local _, last = name:find(piece, at, true)
    if not last then
      return false
    end
    at = last + 1
  end
  local tail_at = #name - #tail + 1
  return tail_at >= at and name:sub(tail_at) == tail
end

local function may_use(routes, client, name)
  if not client or not routes.grants then
    return true
  end
  for _, pattern in ipairs(routes.grants[client] or {}) do
    if matches(pattern, name) then
      return true
    end
  end
  return false
end

-- The routing table --------------------------------------------------------------------------

local function expect(condition, message)
  if not condition then
    error(message, 0)
  end
end

local function is_count(value)
  return type(value) == "number" and value >= 0 and value % 1 == 0
end

local function is_name(value)
  return type(value) == "string" and value ~= ""
end

local function optional(value)
  if value ~= cjson.null then
    return value
  end
end

local function total_weight(name, targets)
  expect(type(targets) == "table", "no list of targets: " .. name)
  local total = 0
  for _, target in ipairs(targets) do
    expect(type(target) == "table" and is_name(target.model), "a target has no model: " .. name)
    expect(is_count(target.weight), "a weight is not a whole number of 0 or above: " .. name)
    total = total + target.weight
  end
  return total
end

local function checked_grants(grants)
  expect(grants == nil or type(grants) == "table", "grants are not an object")
  for client, patterns in pairs(grants or {}) do
    expect(type(patterns) == "table", "no list of patterns: " .. client)
    for _, pattern in ipairs(patterns) do
      expect(type(pattern) == "string", "a pattern is not a string: " .. client)
    end
  end
  return grants
end

local function checked_address(address)
  -- Names would need a resolver.
  local is_address = address == nil
    or type(address) == "string"
      and (address:find("^[%d.]+:%d+$") or address:find("^%[[%x:.]+%]:%d+$"))
  expect(is_address, "base_address is not ADDRESS:PORT")
  return address
end

-- What requests are answered from. Raises where the text is no routing table.
local function read_table(text)
  local given = cjson.decode(text)
  expect(type(given) == "table", "not a JSON object")
  expect(type(given.digest) == "string", "no digest")
  expect(type(given.routes) == "table", "no routes")
  local routes = {
    digest = given.digest,
    complete = given.complete == true,
    base = given.base,
    base_address = checked_address(optional(given.base_address)),
    grants = checked_grants(optional(given.grants)),
    by_name = {},
    names = {},
    coming = {},
  }
  for _, name in ipairs(optional(given.coming) or {}) do
    routes.coming[name] = true
  end
  for name, targets in pairs(given.routes) do
    expect(is_name(name), "routes are not an object of names")
    local total = total_weight(name, targets)
    if total > 0 then
      routes.by_name[name] = { targets = targets, total = total }
      routes.names[#routes.names + 1] = name
    end
  end
  table.sort(routes.names)
  return routes
end

-- The dictionary holds each table under a name of its own, NUMBER@TIME, and which one is current:
-- a worker never sees half a change, and a table that does not fit leaves the old one in place.
local loaded

local function current_routes()
  local name = routing:get("current")
  if name and not (loaded and loaded.name == name) then
    -- Gone if yet another one has just taken its place: the next request looks again.
    local text = routing:get(name)
    if text then
      loaded = read_table(text)
      loaded.name = name
      loaded.created = tonumber(name:match("@(%d+)$"))
    end
  end
  return loaded
end

local function routes_or_refuse()
  local routes = current_routes()
  if not routes then
    ngx.header["Retry-After"] = 1
    refuse(503, "This server is starting. Try again.")
  end
  return routes
end

local function body_or_refuse()
  ngx.req.read_body()
  if ngx.req.get_body_file() then
    refuse(413, EXPLANATIONS[413])
  end
  return ngx.req.get_body_data() or ""
end

-- PUT /routes. There is one sidecar, and it stores one table at a time.
function route.store()
  require_method("PUT")
  local text = body_or_refuse()
  local fits, routes = pcall(read_table, text)
  if not fits then
    refuse(400, "This is no routing table: " .. routes)
  end
  local former = routing:get("current")
  local name = routing:incr("number", 1, 0) .. "@" .. ngx.time()
  local stored, problem = routing:safe_set(name, text)
  if not stored then
    refuse(500, "The routing table was not stored: " .. problem)
  end
  routing:set("current", name)
  if former then
    routing:delete(former)
  end
  send(200, cjson.encode { digest = routes.digest })
end

-- Traffic ------------------------------------------------------------------------------------

local function count(what, model, amount)
  local _, problem = traffic:incr(what .. ":" .. model, amount, 0)
  if problem then
    ngx.log(ngx.ERR, "traffic was not counted: ", problem)
  end
end

local function started(model)
  ngx.var.counted_model = model
  count("requests", model, 1)
  count("in_flight", model, 1)
end

-- Sees each part of an answer as it passes. If vLLM breaks an answer whose status was already sent,
-- nginx flushes once more, with nothing, and ends; if the client leaves, it does not. An empty
-- flush that comes first belongs to the headers.
function route.passed()
  local text, is_last = ngx.arg[1], ngx.arg[2]
  local state = ngx.ctx
  state.is_broken = state.is_begun and text == "" and not is_last
  state.is_begun = true
end

-- nginx calls this exactly once for each request, whatever became of it.
function route.finished()
  local model = ngx.var.counted_model
  if not model or model == "" then
    return
  end
  count("in_flight", model, -1)
  count("seconds", model, tonumber(ngx.var.request_time) or 0)
  if ngx.status >= 500 or ngx.ctx.is_broken then
    count("errors", model, 1)
  end
end

-- GET /state.
function route.state()
  require_method("GET")
  local models = {}
  for _, key in ipairs(traffic:get_keys(0)) do
    local what, model = key:match("^([%a_]+):(.*)$")
    models[model] = models[model] or { requests = 0, errors = 0, in_flight = 0, seconds = 0 }
    models[model][what] = traffic:get(key)
  end
  local routes = current_routes()
  send(200, cjson.encode {
    digest = routes and routes.digest or "",
    clients = count_of_clients(),
    traffic = models,
  })
end

-- The model's name in a body -----------------------------------------------------------------

local QUOTE, BACKSLASH, COMMA = ('"'):byte(), ("\\"):byte(), (","):byte()
local OPENING = { [("{"):byte()] = true, [("["):byte()] = true }
local CLOSING = { [("}"):byte()] = true, [("]"):byte()] = true }

-- Keys that decide something here. Bodies in which one occurs twice are refused: which one vLLM
-- would go by is not for us to guess.
local DECIDING = { model = true, echo = true, prompt_logprobs = true }

-- The position after the string that begins at a position; after the text if it does not end.
local function after_string(text, at)
  at = at + 1
  local byte = text:byte(at)
  while byte and byte ~= QUOTE do
    at = at + (byte == BACKSLASH and 2 or 1)
    byte = text:byte(at)
  end
  return at + 1
end

-- The position after the value that begins at a position. Spaces after numbers belong to them.
local function after_value(text, at)
  local byte = text:byte(at)
  if byte == QUOTE then
    return after_string(text, at)
  end
  local depth = 0
  while byte do
    if depth == 0 and (byte == COMMA or CLOSING[byte]) then
      return at
    end
    if OPENING[byte] then
      depth = depth + 1
    elseif CLOSING[byte] then
      depth = depth - 1
    end
    at = byte == QUOTE and after_string(text, at) or at + 1
    byte = text:byte(at)
  end
  return at
end

local function decoded(text)
  local list = cjson.decode("[" .. text .. "]")
  return type(list) == "table" and list[1] or nil
end

local function key_name(text)
  -- Only escapes need the decoder: "mod\u0065l" is a way to write "model".
  return text:find("\\", 1, true) and decoded(text) or text:sub(2, -2)
end

-- Where the values of the deciding keys are: key -> first position and position after. Only as
-- strict as that needs: the text is decoded later on.
local function deciding_values(text)
  local found = {}
  local at = text:match("^[ \t\r\n]*{[ \t\r\n]*()")
  while at and text:byte(at) == QUOTE do
    local key_after = after_string(text, at)
    local first = text:match("^[ \t\r\n]*:[ \t\r\n]*()", key_after)
    if not first then
      return found
    end
    local after = after_value(text, first)
    local name = key_name(text:sub(at, key_after - 1))
    if DECIDING[name] then
      if found[name] then
        refuse(400, "The key `" .. name .. "` occurs twice.")
      end
      found[name] = { first = first, after = after }
    end
    at = text:match("^[ \t\r\n]*,[ \t\r\n]*()", after)
  end
  return found
end

-- The rest of the text stays as it is, byte for byte: to decode and encode it again would lose
-- empty lists and long numbers.
local function with_value(text, place, value)
  return text:sub(1, place.first - 1) .. cjson.encode(value) .. text:sub(place.after)
end

local function is_object(text)
  return text:find("^[ \t\r\n]*{") ~= nil
end

-- Looks at the very text that vLLM is to get.
local function check_body(text, model)
  local body = cjson.decode(text)
  -- The decoder takes a zero byte for the end of the text.
  if type(body) ~= "table" or not is_object(text) or text:find("\0", 1, true) then
    refuse(400, "The body is not a JSON object.")
  end
  if body.model ~= model then
    refuse(400, "The body does not name one model.")
  end
  local echo, prompt_logprobs = optional(body.echo), optional(body.prompt_logprobs)
  -- vLLM takes 1 and "yes" for true, too.
  if echo ~= nil and echo ~= false then
    refuse(400, "Prompts are not sent back here: leave out `echo`.")
  end
  if prompt_logprobs ~= nil then
    refuse(400, "Prompts are not scored here: leave out `prompt_logprobs`.")
  end
end

local function asked_model(text, place)
  local name = place and decoded(text:sub(place.first, place.after - 1))
  if name == nil then
    -- Tells those whose text is no JSON at all.
    check_body(text, nil)
    refuse(400, "Name a model: GET /v1/models lists them.")
  end
  if type(name) ~= "string" then
    refuse(400, "The name of the model is not a string: GET /v1/models lists them.")
  end
  return name
end

-- What tenants can ask -----------------------------------------------------------------------

local function pass_to(address)
  ngx.var.upstream = address
  if address ~= VLLM then
    -- The pods of the base model have a door of their own, which asks for the same key.
    ngx.var.passed_key = ngx.var.http_authorization
  end
  return ngx.exec("@upstream")
end

local function drawn_model(targets, total)
  local left = math.random(total)
  for _, target in ipairs(targets) do
    left = left - target.weight
    if left <= 0 then
      return target.model
    end
  end
end

local function complete()
  local client = asking_client()
  -- First, as it may take its time: between the look at the table and the count of the request
  -- nothing may wait, or the sidecar could unload what was chosen.
  local text = body_or_refuse()
  local routes = routes_or_refuse()
  local place = deciding_values(text).model
  local name = asked_model(text, place)
  if not may_use(routes, client, name) then
    refuse(403, "Your key is not for the model `" .. name .. "`. GET /v1/models lists yours.")
  end
  local found = routes.by_name[name]
  if not found then
    if routes.coming[name] then
      ngx.header["Retry-After"] = 1
      local message = "The model `%s` is not here, or not yet. Try again; if it stays so, the "
        .. "status of its AdapterDeployment says why."
      refuse(503, message:format(name))
    end
    local message = "The model `%s` does not exist. GET /v1/models lists what is served."
    refuse(404, message:format(name))
  end
  local model = drawn_model(found.targets, found.total)
  local new_text = with_value(text, place, model)
  check_body(new_text, model)
  ngx.req.set_body_data(new_text)
  started(model)
  return pass_to(model == routes.base and routes.base_address or VLLM)
end

local function list_models()
  local client = asking_client()
  local routes = routes_or_refuse()
  local models = {}
  for _, name in ipairs(routes.names) do
    if may_use(routes, client, name) then
      models[#models + 1] = cjson.encode {
        id = name,
        object = "model",
        created = routes.created,
        owned_by = "tunesmith",
        root = routes.by_name[name].targets[1].model,
      }
    end
  end
  -- Joined by hand: an empty list would be encoded as an object.
  send(200, '{"object":"list","data":[' .. table.concat(models, ",") .. "]}")
end

local function show_health()
  return pass_to(VLLM)
end

-- Whether this pod may be sent requests: every version had its turn, and vLLM lives.
local function show_ready()
  if not routes_or_refuse().complete then
    refuse(503, "The adapters are being loaded.")
  end
  ngx.req.set_uri("/health")
  return pass_to(VLLM)
end

local DOORS = {
  ["/v1/chat/completions"] = { method = "POST", open = complete },
  ["/v1/completions"] = { method = "POST", open = complete },
  ["/v1/models"] = { method = "GET", open = list_models },
  ["/health"] = { method = "GET", open = show_health },
  ["/ready"] = { method = "GET", open = show_ready },
}

function route.answer()
  local door = DOORS[ngx.var.uri]
  if not door then
    refuse(404, EXPLANATIONS[404])
  end
  require_method(door.method)
  return door.open()
end

-- Words for what nginx itself refuses.
function route.explain()
  local status = ngx.status
  refuse(status, EXPLANATIONS[status] or "The request could not be answered.")
end

return route
