"""OpenAI's own client for Python, against a real node."""

import asyncio
import json
import unittest
from typing import Literal

import openai
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

import served

ASK = {"model": "bard", "messages": [{"role": "user", "content": "Speak, ghost."}], "max_tokens": 16, "temperature": 0}
RESPOND = {"model": "bard", "input": "Speak, ghost.", "max_output_tokens": 16, "temperature": 0}
ROLL = {"type": "function", "function": {"name": "roll", "parameters": served.ROLL}}


class Verdict(BaseModel):
    guilty: bool
    of: Literal["theft", "murder"]


def client(url=served.URL, key="none", **more):
    return OpenAI(base_url=url + "/v1", api_key=key, max_retries=0, **more)


class Chat(unittest.TestCase):
    def setUp(self):
        self.client = client()

    def test_models_are_listed_and_found(self):
        names = [model.id for model in self.client.models.list()]
        self.assertIn("bard", names)
        self.assertEqual(self.client.models.retrieve("bard").object, "model")

    def test_a_whole_answer_and_a_stream_say_the_same(self):
        whole = self.client.chat.completions.create(**ASK)
        choice = whole.choices[0]
        self.assertEqual((choice.finish_reason, choice.message.role), ("length", "assistant"))
        self.assertEqual(whole.usage.completion_tokens, 16)
        self.assertEqual(len(whole.model_extra["talka"]["route"]), served.STAGES)
        chunks = list(self.client.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True}))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        self.assertEqual(text, choice.message.content)
        self.assertEqual(chunks[-1].usage, whole.usage)
        self.assertEqual({chunk.id for chunk in chunks}, {chunks[0].id})

    def test_the_helper_for_streams_puts_the_answer_together(self):
        whole = self.client.chat.completions.create(**ASK).choices[0].message.content
        # The helper takes an answer that was cut by its length for an error.
        stop = whole.split()[1]
        with self.client.chat.completions.stream(**ASK, stop=stop) as stream:
            kinds = {event.type for event in stream}
            final = stream.get_final_completion()
        self.assertIn("content.done", kinds)
        self.assertEqual(final.choices[0].message.content, whole.split(stop)[0])

    def test_choices_seeds_and_stop_strings(self):
        warm = {**ASK, "temperature": 1, "n": 3, "seed": 7}
        first = [choice.message.content for choice in self.client.chat.completions.create(**warm).choices]
        again = [choice.message.content for choice in self.client.chat.completions.create(**warm).choices]
        self.assertEqual((first, len(first)), (again, 3))
        whole = self.client.chat.completions.create(**ASK).choices[0].message.content
        stop = whole.split()[1]
        cut = self.client.chat.completions.create(**ASK, stop=stop).choices[0]
        self.assertEqual((cut.message.content, cut.finish_reason), (whole.split(stop)[0], "stop"))

    def test_log_probabilities(self):
        answer = self.client.chat.completions.create(**{**ASK, "max_tokens": 3}, logprobs=True, top_logprobs=2)
        tokens = answer.choices[0].logprobs.content
        self.assertEqual(len(tokens), 3)
        for token in tokens:
            self.assertEqual(len(token.top_logprobs), 2)
            # At temperature 0 the likeliest is chosen.
            self.assertEqual(token.token, token.top_logprobs[0].token)
            self.assertLessEqual(token.logprob, 0)

    def test_a_bias_forbids_a_token(self):
        plain = self.client.completions.create(model="bard", prompt="Speak", max_tokens=1, temperature=0, logprobs=1)
        scored = self.client.chat.completions.create(**{**ASK, "max_tokens": 1}, extra_body={"logit_bias": {str(token): -100 for token in range(4, 1024)}})
        self.assertEqual(len(plain.choices[0].logprobs.tokens), 1)
        self.assertIn(scored.choices[0].finish_reason, ("length", "stop"))
        unbiased = self.client.chat.completions.create(**{**ASK, "max_tokens": 1})
        self.assertNotEqual(scored.choices[0].message.content, unbiased.choices[0].message.content)


class Functions(unittest.TestCase):
    def setUp(self):
        self.client = client()
        self.ask = {
            "model": "bard", "messages": [{"role": "user", "content": "Roll."}], "tools": [ROLL],
            "tool_choice": "required", "parallel_tool_calls": False, "temperature": 0, "max_tokens": 64,
        }

    def test_a_call_is_typed_and_answered(self):
        choice = self.client.chat.completions.create(**self.ask).choices[0]
        self.assertEqual((choice.finish_reason, choice.message.content), ("tool_calls", None))
        [call] = choice.message.tool_calls
        self.assertEqual((call.type, call.function.name), ("function", "roll"))
        self.assertIn(json.loads(call.function.arguments), [{"dice": 6}, {"dice": 20}])
        on = {**self.ask, "tool_choice": "none", "max_tokens": 8}
        on["messages"] = [*self.ask["messages"], choice.message, {"role": "tool", "tool_call_id": call.id, "content": "5"}]
        self.assertIsNone(self.client.chat.completions.create(**on).choices[0].message.tool_calls)

    def test_arguments_are_streamed(self):
        [call] = self.client.chat.completions.create(**self.ask).choices[0].message.tool_calls
        arguments, names = "", []
        for chunk in self.client.chat.completions.create(**self.ask, stream=True):
            for part in chunk.choices[0].delta.tool_calls or []:
                arguments += part.function.arguments or ""
                names += [part.function.name] if part.function.name else []
        self.assertEqual((names, arguments), (["roll"], call.function.arguments))
        with self.client.chat.completions.stream(**self.ask) as stream:
            [found] = stream.get_final_completion().choices[0].message.tool_calls
        self.assertEqual(found.function.arguments, call.function.arguments)

    def test_a_named_function_is_called(self):
        named = {**self.ask, "tool_choice": {"type": "function", "function": {"name": "roll"}}}
        [call] = self.client.chat.completions.create(**named).choices[0].message.tool_calls
        self.assertEqual(call.function.name, "roll")


class Forms(unittest.TestCase):
    def setUp(self):
        self.client = client()

    def test_an_answer_is_parsed_into_a_type(self):
        ask = {**ASK, "max_tokens": 128}
        parsed = self.client.chat.completions.parse(**ask, response_format=Verdict).choices[0].message.parsed
        self.assertIsInstance(parsed, Verdict)
        found = self.client.responses.parse(**{**RESPOND, "max_output_tokens": 128}, text_format=Verdict)
        self.assertEqual(found.output_parsed, parsed)


class Text(unittest.TestCase):
    def test_completions_are_streamed_and_prompts_scored(self):
        ask = {"model": "bard", "prompt": "ROMEO:", "max_tokens": 12, "temperature": 0}
        whole = client().completions.create(**ask)
        chunks = client().completions.create(**ask, stream=True)
        self.assertEqual("".join(chunk.choices[0].text for chunk in chunks), whole.choices[0].text)
        scored = client().completions.create(**{**ask, "max_tokens": 0}, echo=True, logprobs=0).choices[0]
        self.assertEqual(scored.text, "ROMEO:")
        self.assertIsNone(scored.logprobs.token_logprobs[0])
        self.assertTrue(all(number < 0 for number in scored.logprobs.token_logprobs[1:]))


class Vectors(unittest.TestCase):
    def test_texts_become_vectors(self):
        # Asked for without a format, the client wants base64 and decodes it.
        plain = client(served.ENCODER_URL).embeddings.create(model="bert", input=[[5, 6, 7], [8, 9]], encoding_format="float")
        coded = client(served.ENCODER_URL).embeddings.create(model="bert", input=[[5, 6, 7], [8, 9]])
        self.assertEqual([item.index for item in plain.data], [0, 1])
        for one, other in zip(plain.data, coded.data, strict=True):
            self.assertEqual(len(one.embedding), len(other.embedding))
            self.assertTrue(all(abs(a - b) < 1e-6 for a, b in zip(one.embedding, other.embedding, strict=True)))


class Responses(unittest.TestCase):
    def setUp(self):
        self.client = client()

    def test_a_response_says_what_a_chat_says(self):
        chat = self.client.chat.completions.create(**ASK)
        response = self.client.responses.create(**RESPOND)
        self.assertEqual(response.output_text, chat.choices[0].message.content)
        self.assertEqual((response.status, response.incomplete_details.reason), ("incomplete", "max_output_tokens"))
        last = list(self.client.responses.create(**RESPOND, stream=True))[-1]
        self.assertEqual((last.type, last.response.output_text), ("response.incomplete", response.output_text))

    def test_the_helper_for_streams_puts_the_response_together(self):
        whole = self.client.responses.create(**RESPOND).output_text
        # The helper wants an answer that is complete.
        stop = whole.split()[1]
        with self.client.responses.stream(**RESPOND, extra_body={"stop": stop}) as stream:
            kinds = [event.type for event in stream]
            final = stream.get_final_response()
        self.assertEqual(final.output_text, whole.split(stop)[0])
        self.assertEqual((kinds[0], kinds[-1]), ("response.created", "response.completed"))

    def test_a_conversation_goes_on_after_a_call(self):
        roll = {"type": "function", "name": "roll", "parameters": served.ROLL, "strict": True}
        asked = [{"role": "user", "content": "Roll."}]
        more = {"model": "bard", "tools": [roll], "temperature": 0}
        response = self.client.responses.create(**more, input=asked, tool_choice="required", parallel_tool_calls=False, max_output_tokens=64)
        [call] = response.output
        self.assertEqual((call.type, call.name), ("function_call", "roll"))
        output = {"type": "function_call_output", "call_id": call.call_id, "output": "5"}
        on = self.client.responses.create(**more, input=[*asked, call, output], tool_choice="none", max_output_tokens=8)
        self.assertEqual(on.output[0].type, "message")
        stream = self.client.responses.create(**more, input=asked, tool_choice="required", parallel_tool_calls=False, max_output_tokens=64, stream=True)
        arguments = "".join(event.delta for event in stream if event.type == "response.function_call_arguments.delta")
        self.assertEqual(arguments, call.arguments)

    def test_tokens_are_counted(self):
        count = self.client.responses.input_tokens.count(model="bard", input="Speak, ghost.")
        self.assertEqual(count.input_tokens, self.client.responses.create(**RESPOND).usage.input_tokens)


class Refusals(unittest.TestCase):
    def test_errors_are_typed_and_say_what_is_wrong(self):
        chat = client().chat.completions.create
        with self.assertRaises(openai.NotFoundError) as caught:
            chat(**{**ASK, "model": "gpt-9"})
        self.assertEqual(caught.exception.code, "model_not_found")
        self.assertTrue(caught.exception.request_id)
        for wrong, param in [
            ({"temperature": 5}, "temperature"),
            ({"modalities": ["text", "audio"]}, "modalities"),
            ({"extra_body": {"no_such_thing": 1}}, "no_such_thing"),
        ]:
            with self.assertRaises(openai.BadRequestError) as caught:
                chat(**{**ASK, **wrong})
            self.assertEqual(caught.exception.param, param)
        with self.assertRaises(openai.NotFoundError):
            client().responses.retrieve("resp_1")

    def test_a_wrong_key_is_refused_and_the_right_one_served(self):
        with self.assertRaises(openai.AuthenticationError) as caught:
            client(served.LOCKED_URL, "sk-wrong").chat.completions.create(**ASK)
        self.assertEqual(caught.exception.code, "invalid_api_key")
        right = client(served.LOCKED_URL, served.LOCKED_KEY)
        self.assertEqual(right.chat.completions.create(**ASK).usage.completion_tokens, 16)


class Together(unittest.TestCase):
    def test_many_streams_at_once(self):
        async def text(asynchronous):
            stream = await asynchronous.chat.completions.create(**ASK, stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        async def all_of():
            async with AsyncOpenAI(base_url=served.URL + "/v1", api_key="none", max_retries=0) as asynchronous:
                return await asyncio.gather(*(text(asynchronous) for _ in range(4)))

        texts = asyncio.run(all_of())
        self.assertEqual(texts, [client().chat.completions.create(**ASK).choices[0].message.content] * 4)


if __name__ == "__main__":
    unittest.main()
