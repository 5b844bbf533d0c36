-- One streamed answer after the other on each connection; at the end, how many there were by status.

local answers = {}
local threads = {}

wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"model": "bard", "prompt": "Once", "max_tokens": 100, "ignore_eos": true, "stream": true}'

function setup(thread)
  table.insert(threads, thread)
end

function response(status, headers, body)
  answers[status] = (answers[status] or 0) + 1
  told = ""
  for code, count in pairs(answers) do
    told = told .. "status " .. code .. " " .. count .. "\n"
  end
end

function done(summary, latency, requests)
  for _, thread in ipairs(threads) do
    io.write(thread:get("told") or "")
  end
  local errors = summary.errors
  io.write("broken " .. (errors.connect + errors.read + errors.write + errors.timeout) .. "\n")
end
