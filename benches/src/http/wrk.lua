-- Sends the requests of the benchmark with wrk, and prints the result as one line of JSON.

-- Returns the lines of the file that an environment variable names.
local function lines(variable)
  local read = {}
  for line in io.lines(os.getenv(variable)) do
    read[#read + 1] = line
  end
  return read
end

function init()
  local targets, bodies = lines("BENCH_TARGETS"), lines("BENCH_BODIES")
  wrk.method = os.getenv("BENCH_METHOD")
  local requests = {}
  for n, target in ipairs(targets) do
    local path, token = target:match("^(%S+) (%S+)$")
    wrk.path = path
    wrk.headers["Authorization"] = "Bearer " .. token
    if #bodies > 0 then
      wrk.headers["Content-Type"] = "application/json"
      wrk.body = bodies[(n - 1) % #bodies + 1]
    end
    requests[n] = wrk.format()
  end
  -- Without this function, wrk sends the last formatted request repeatedly. That is faster
  -- than a call for each request.
  if #requests > 1 then
    -- wrk does not send the request of the first call. It only inspects it.
    local n = #requests - 1
    request = function()
      n = n % #requests + 1
      return requests[n]
    end
  end
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests":%d,"duration_us":%d,"connect":%d,"read":%d,"write":%d,"timeout":%d,'
      .. '"status":%d,"p50_us":%d,"p99_us":%d,"p999_us":%d}\n',
    summary.requests, summary.duration, errors.connect, errors.read, errors.write,
    errors.timeout, errors.status, latency:percentile(50), latency:percentile(99),
    latency:percentile(99.9)))
end
