"""The words of the benchmark's workloads: instructions, notes, documents and questions."""

from __future__ import annotations

import random

THINGS = "lamp bridge kettle forest letter violin market harbour orchard clock garden ladder mirror".split()
PEOPLE = "baker sailor teacher doctor farmer painter miller tailor nurse pilot clerk weaver".split()
PLACES = "village island station valley castle library desert school lighthouse tavern mill ferry".split()
FEELINGS = "It was cold. Nobody spoke. The rain had stopped. Bells rang. A dog barked.".split(". ")
MONTHS = "March April May June July August September October".split()

RULES = [
    "You sort the notes that travellers leave at the desk of a hotel, so that the right person reads them.",
    "Read the note and answer with the name of one desk, in small letters, and with nothing else.",
    "Write rooms if the note is about the bed, the heating, noise, light, or the key of a room.",
    "Write kitchen if the note is about breakfast, dinner, drinks, dishes, or what somebody can't eat.",
    "Write transport if the note is about trains, taxis, bicycles, parking, or the way to a place.",
    "Write money if the note is about a bill, a price, a refund, a card that was refused, or a receipt.",
    "Write lost if the note is about something that was forgotten, found, stolen, or left in a room.",
    "Write thanks if the note praises somebody or something and asks for nothing at all.",
    "If a note is about two desks, take the one that has to act first; if you can't tell, write rooms.",
    "Never write more than the one word; never explain, apologise, greet, or repeat the note.",
    "A note may be rude, or full of spelling errors, or in another language: sort it all the same.",
    "Names, dates and numbers of rooms never matter, so don't let them lead you to a choice.",
]
ENUM_RULES = [
    *RULES[:-3],
    "Give the word as the label of a JSON object, and give that object only: no other field, no "
    "explanation, no greeting, and no repetition of the note.",
    *RULES[-2:],
]
OBJECT_RULES = [
    *RULES[:-3],
    "Answer with a JSON object: desk is that word; urgency is low, normal or high; room is the number of "
    "the room, 1 if there is none; reply is true if the traveller waits for an answer; and summary says "
    "in a few words what it is about.",
    *RULES[-2:],
]

# One to six of these make a note: none is shorter than 40 characters.
NOTES = [
    "The heating in room {n} has been off since the {person} left this morning.",
    "Somebody plays the {thing} above room {n} every night until two.",
    "My key to room {n} turns, but the door to the {place} side won't open.",
    "Breakfast was cold again, and the {person} at table {n} got mine.",
    "My daughter can't eat nuts, please tell the {person} in the kitchen.",
    "Could we have dinner at {n} minutes past seven near the {thing}?",
    "Is there a taxi to the {place} before the train at five past {n}?",
    "The {person} told me that bicycles may be left behind the {place}.",
    "How do I get to the {place} from here without walking by the {thing}?",
    "The bill has a {thing} on it for {n} crowns that I never ordered.",
    "Your machine refused my card, though the {person} from the bank says it works.",
    "I still wait for the receipt of room {n}, and for my refund.",
    "I left a {thing} in room {n}, wrapped in a blue scarf.",
    "We found a {thing} under the bed, it must belong to the {person} before us.",
    "Someone took my umbrella from the hall beside the {thing} on day {n}.",
    "The {person} at your desk was kind beyond all measure to my mother.",
    "We have never slept so well as in the room above the {place}.",
    "The light in room {n} can't be turned off.",
    "Who stole the {thing} from my car last night?",
    "Thank you for the {thing} on the table, and for everything else.",
]

DOCUMENT = [
    "In {month} {year} the {person} of the {place} bought a {thing} for {n} crowns at the fair.",
    "The council met {n} times that year, and wrote down little but the price of the {thing}.",
    "A {person} from the {place} kept the books, which burned with the {thing} in {year}.",
    "Nobody knows why the road to the {place} was closed in {month}, or who had the {thing} moved.",
    "By {year} there were {n} families at the {place}, most of them kin of the {person}.",
    "The {person} wrote in {month} that the {thing} had been mended twice, and would not last.",
    "Travellers paid {n} crowns to cross, half of which went to the {person} and half to the {place}.",
    "A storm in {month} {year} took the roof of the {place} and left the {thing} as it was.",
]
QUESTIONS = [
    "In which month does the text begin?",
    "What was bought at the fair?",
    "Which year is named first?",
    "Who kept the books?",
    "Which place lost its roof in a storm?",
    "How many crowns did travellers pay?",
    "How many families lived there?",
    "What had been mended twice?",
]


def story(draw: random.Random) -> str:
    """The beginning of one, about 20 tokens."""
    return _filled(draw, "The story of the {person} and the {thing} begins in a {place} in {year}, where")


def scraps(draw: random.Random, sentences: int) -> str:
    """About 20 tokens a sentence."""
    return " ".join(
        f"Room {draw.randint(2, 999)}: the {draw.choice(PEOPLE)} left the {draw.choice(THINGS)} "
        f"near the {draw.choice(PLACES)}. {draw.choice(FEELINGS).rstrip('.')}."
        for _ in range(sentences)
    )


def note(draw: random.Random) -> str:
    """40 to 400 characters."""
    text = " ".join(_filled(draw, sentence) for sentence in draw.sample(NOTES, draw.randint(1, 6)))
    return text[:400].rstrip()


def document(draw: random.Random) -> str:
    """About 600 tokens."""
    sentences = [_filled(draw, draw.choice(DOCUMENT)) for _ in range(27)]
    return "\n".join(" ".join(sentences[at : at + 9]) for at in range(0, len(sentences), 9))


def _filled(draw: random.Random, sentence: str) -> str:
    return sentence.format(
        n=draw.randint(2, 60),
        year=draw.randint(1650, 1910),
        month=draw.choice(MONTHS),
        person=draw.choice(PEOPLE),
        thing=draw.choice(THINGS),
        place=draw.choice(PLACES),
    )
