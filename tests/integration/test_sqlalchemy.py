"""SQLAlchemy's asyncio engine and sessions over two drivers."""

import asyncio

import pytest

sqlalchemy = pytest.importorskip("sqlalchemy")
pytest.importorskip("greenlet")
from sqlalchemy import func, select, text  # noqa: E402
from sqlalchemy.ext.asyncio import (  # noqa: E402
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column  # noqa: E402


class Base(DeclarativeBase):
    pass


class Person(Base):
    __tablename__ = "person"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


@pytest.fixture(params=["asyncpg", "psycopg"])
def engine(request, run, way):
    """One whose tables are there, and which is disposed of at the end."""
    pytest.importorskip(request.param)
    kind = "asyncpg_options" if request.param == "asyncpg" else "libpq"
    engine = create_async_engine(
        f"postgresql+{request.param}://",
        connect_args=request.getfixturevalue(kind),
        pool_size=3,
    )

    async def make():
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.drop_all)
            await connection.run_sync(Base.metadata.create_all)

    run(make())
    yield engine
    run(engine.dispose())


def test_connection(run, engine, way):
    async def main():
        async with engine.connect() as connection:
            query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
            assert await connection.scalar(text(query)) == (way == "tls")
            result = await connection.stream(text("SELECT generate_series(1, 1000)"))
            assert [n async for n in result.scalars()] == list(range(1, 1001))

    run(main())


def test_sessions(run, engine):
    """Many at once, of a pool of few connections."""
    session_of = async_sessionmaker(engine, expire_on_commit=False)

    async def add(number):
        async with session_of() as session, session.begin():
            session.add(Person(id=number, name=f"name {number}"))

    async def main():
        async with asyncio.TaskGroup() as group:
            for number in range(100):
                group.create_task(add(number))
        async with AsyncSession(engine) as session:
            query = select(func.count()).select_from(Person)
            assert await session.scalar(query) == 100
            person = await session.get(Person, 7)
            assert person.name == "name 7"
            await session.refresh(person)

    run(main())


def test_cancelled_session(run, engine):
    """Its transaction is not there; its connection returns to the pool."""

    async def main():
        added, never = asyncio.Event(), asyncio.Event()

        async def add():
            async with AsyncSession(engine) as session, session.begin():
                session.add(Person(id=1, name="nobody"))
                await session.flush()
                added.set()
                await never.wait()

        task = asyncio.create_task(add())
        await added.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert engine.pool.checkedout() == 0
        async with AsyncSession(engine) as session:
            assert await session.get(Person, 1) is None

    run(main())
