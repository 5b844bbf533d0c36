"""Anthropic's own client for Python, against a real node."""

import unittest

import anthropic

import served

# The client has no parameter for it any more, and answers should not differ by chance.
COLD = {"extra_body": {"temperature": 0}}
ASK = {"model": "bard", "max_tokens": 16, "messages": [{"role": "user", "content": "Speak, ghost."}], **COLD}
ROLL = {"name": "roll", "input_schema": {"type": "object", **served.ROLL}}


def client(url=served.URL, key="none"):
    return anthropic.Anthropic(base_url=url, api_key=key, max_retries=0)


class Messages(unittest.TestCase):
    def setUp(self):
        self.messages = client().messages

    def test_a_whole_answer_and_a_stream_say_the_same(self):
        whole = self.messages.create(**ASK)
        self.assertEqual((whole.stop_reason, whole.usage.output_tokens), ("max_tokens", 16))
        self.assertEqual(len(whole.model_extra["talka"]["route"]), served.STAGES)
        with self.messages.stream(**ASK) as stream:
            text = "".join(stream.text_stream)
            final = stream.get_final_message()
        self.assertEqual(text, whole.content[0].text)
        self.assertEqual(final.usage.output_tokens, 16)
        self.assertEqual(self.messages.create(**ASK, stream=True).__class__.__name__, "Stream")

    def test_a_stop_string_is_named(self):
        whole = self.messages.create(**ASK).content[0].text
        stop = whole.split()[1]
        cut = self.messages.create(**ASK, stop_sequences=[stop])
        self.assertEqual((cut.stop_reason, cut.stop_sequence), ("stop_sequence", stop))

    def test_a_conversation_goes_on_after_a_call(self):
        ask = {**ASK, "messages": [{"role": "user", "content": "Roll."}], "tools": [ROLL], "max_tokens": 64}
        must = {"type": "any", "disable_parallel_tool_use": True}
        message = self.messages.create(**ask, tool_choice=must)
        [call] = message.content
        self.assertEqual((message.stop_reason, call.type, call.name), ("tool_use", "tool_use", "roll"))
        self.assertIn(call.input, [{"dice": 6}, {"dice": 20}])
        with self.messages.stream(**ask, tool_choice=must) as stream:
            [streamed] = stream.get_final_message().content
        self.assertEqual(streamed.input, call.input)
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "5"}
        ask["messages"] = [*ask["messages"], {"role": "assistant", "content": message.content}, {"role": "user", "content": [result]}]
        self.assertEqual(self.messages.create(**{**ask, "max_tokens": 8}, tool_choice={"type": "none"}).content[0].type, "text")

    def test_tokens_are_counted(self):
        count = self.messages.count_tokens(model="bard", messages=ASK["messages"])
        self.assertEqual(count.input_tokens, self.messages.create(**ASK).usage.input_tokens)

    def test_errors_are_typed(self):
        with self.assertRaises(anthropic.NotFoundError) as caught:
            self.messages.create(**{**ASK, "model": "claude-9"})
        self.assertEqual(caught.exception.body["error"]["type"], "not_found_error")
        self.assertTrue(caught.exception.request_id)
        with self.assertRaises(anthropic.BadRequestError):
            self.messages.create(**{**ASK, "max_tokens": 0})
        with self.assertRaises(anthropic.AuthenticationError):
            client(served.LOCKED_URL, "wrong").messages.create(**ASK)
        self.assertEqual(client(served.LOCKED_URL, served.LOCKED_KEY).messages.create(**ASK).type, "message")


if __name__ == "__main__":
    unittest.main()
